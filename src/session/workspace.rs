//! Where an agent works, and what it gets of the conversation so far.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use sha2::{Digest as _, Sha256};

use crate::{
    agents::Transcript,
    config::Config,
    ids::{SessionId, SessionKey, TurnId},
    protocol::{Message, Part, Role},
    store::Store,
};

/// Messages that a replay takes up at most: the newest.
const REPLAYED_MESSAGES: u32 = 1000;
/// Bytes of these that it takes up: more than any model has room for.
const REPLAYED_BYTES: u64 = 8 << 20;

/// The folder in which `agent` works for a session: the configured one, or one of the session's own under the data
/// dir, made if it is not there.
///
/// # Errors
/// Text that says which folder cannot be used and why.
pub fn prepare(config: &Config, agent: &str, key: &SessionKey) -> Result<PathBuf, String> {
    let configured = config.agents.get(agent).and_then(|agent| agent.cwd.clone());
    let needed = configured.is_some() || config.agents.get(agent).is_some_and(|agent| !agent.command.is_empty());
    let folder = configured.unwrap_or_else(|| own_folder(config, key));
    if needed {
        std::fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be used: {error}", folder.display()))?;
        return folder.canonicalize().map_err(|error| format!("{} cannot be used: {error}", folder.display()));
    }
    Ok(folder)
}

/// The folder of a session's own.
fn own_folder(config: &Config, key: &SessionKey) -> PathBuf {
    config.data_dir().join("workspaces").join(folder_name(key))
}

/// Where folders of sessions that are deleted wait until they are removed.
const DELETED: &str = "deleted";

/// Takes away the folder of a session's own that is deleted, so that who makes the key again has one that is empty. It is
/// out of the way at once, whatever still works in it, and removed beside.
pub fn forget(config: &Config, key: &SessionKey) {
    let folder = own_folder(config, key);
    let away = config.data_dir().join(DELETED);
    let moved = match std::fs::symlink_metadata(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => Err(error),
        Ok(_) => std::fs::create_dir_all(&away).and_then(|()| {
            let aside = away.join(TurnId::new().to_string());
            std::fs::rename(&folder, &aside)?;
            Ok(aside)
        }),
    };
    match moved {
        Ok(aside) => drop(tokio::task::spawn_blocking(move || {
            // What its agent, on the way out, writes meanwhile goes with the next start.
            if let Err(error) = std::fs::remove_dir_all(&aside) {
                log::debug!(error:% = error; "{} could not be removed yet", aside.display());
            }
        })),
        Err(error) => {
            log::warn!(session:% = key, error:% = error; "the folder of a deleted session stays: {}", folder.display());
        }
    }
}

/// Where calls without a session work, a folder each.
const CALLS: &str = "calls";

/// The folder that a call works in; its own one goes with it.
#[derive(Debug)]
pub struct CallFolder {
    path: PathBuf,
    own: bool,
}

impl CallFolder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, where it is the call's own. Its agent is gone.
    pub fn remove(self) {
        if self.own
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            log::warn!(error:% = error; "{} could not be removed", self.path.display());
        }
    }
}

/// The folder in which `agent` works for a call: the configured one, or one of the call's own.
///
/// # Errors
/// Text that says which folder cannot be used and why.
pub fn prepare_call(config: &Config, agent: &str, call: TurnId) -> Result<CallFolder, String> {
    let configured = config.agents.get(agent).and_then(|agent| agent.cwd.clone());
    let own = configured.is_none() && config.agents.get(agent).is_some_and(|agent| !agent.command.is_empty());
    let needed = own || configured.is_some();
    let path = configured.unwrap_or_else(|| config.data_dir().join(CALLS).join(call.to_string()));
    if needed {
        let failed = |error| format!("{} cannot be used: {error}", path.display());
        std::fs::create_dir_all(&path).map_err(failed)?;
        return Ok(CallFolder { path: path.canonicalize().map_err(failed)?, own });
    }
    Ok(CallFolder { path, own })
}

/// Removes what calls and deleted sessions of an earlier run have left. Their agents are gone.
pub fn sweep(config: &Config) {
    for name in [CALLS, DELETED] {
        let folder = config.data_dir().join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                log::warn!(error:% = error; "what an earlier run has left could not be removed: {}", folder.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A folder name for a key: readable, and different for different keys also where only odd characters differ.
fn folder_name(key: &SessionKey) -> String {
    let readable: String =
        key.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(60).collect();
    let digest = Sha256::digest(key.as_str().as_bytes());
    let tail: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("{readable}-{tail}")
}

/// Reads the conversation so far, without the message of the turn that is about to run.
#[must_use]
pub fn transcript(
    store: &Store,
    key: &SessionKey,
    conversation: SessionId,
    without: Option<TurnId>,
) -> Arc<dyn Transcript> {
    Arc::new(StoredTranscript { store: store.clone(), key: key.clone(), conversation, without })
}

struct StoredTranscript {
    store: Store,
    key: SessionKey,
    conversation: SessionId,
    without: Option<TurnId>,
}

impl Transcript for StoredTranscript {
    fn load(&self) -> BoxFuture<'static, Result<Vec<Message>, String>> {
        let (store, key) = (self.store.clone(), self.key.clone());
        let (conversation, without) = (self.conversation, self.without);
        async move {
            let loaded = store
                .transcript(conversation, REPLAYED_MESSAGES, REPLAYED_BYTES)
                .await
                .map_err(|error| error.to_string())?;
            let mut messages: Vec<Message> = loaded.into_iter().filter(|message| message.turn_id != without).collect();
            for message in messages.iter_mut().filter(|message| message.role == Role::User) {
                with_files(&store, &key, message).await?;
            }
            Ok(messages)
        }
        .boxed()
    }
}

/// Puts the content of images back, which the transcript does not keep.
async fn with_files(store: &Store, key: &SessionKey, message: &mut Message) -> Result<(), String> {
    let is_image = |part: &Part| matches!(part, Part::File { media_type, .. } if media_type.starts_with("image/"));
    let Some(turn) = message.turn_id.filter(|_| message.parts.iter().any(is_image)) else { return Ok(()) };
    let Some(record) = store.turn(key, turn).await.map_err(|error| error.to_string())? else { return Ok(()) };
    let files = message.parts.iter_mut().filter(|part| matches!(part, Part::File { .. }));
    for (part, file) in files.zip(record.attachments.iter()) {
        if let Part::File { content_base64, media_type, .. } = part
            && media_type.starts_with("image/")
        {
            *content_base64 = Some(file.content_base64.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_in_odd_characters_get_different_folders() {
        let name = |key: &str| folder_name(&key.parse().unwrap());
        assert_ne!(name("a:b"), name("a.b"));
        assert!(name("..").starts_with("__-") && !name("a:b/".trim_end_matches('/')).contains(':'));
        assert!(name(&"x".repeat(200)).len() < 100);
    }
}
