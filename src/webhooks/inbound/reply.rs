//! Where the ends of the turns of a route are told: an endpoint of outbound webhooks, so they are durable, signed, tried again
//! and kept away from addresses that are not public.

use super::key::Prefix;
use crate::{
    config::{Secret, WebhookConfig},
    webhooks::{
        outbound::{Configured, REPLY, check},
        signature,
    },
};

/// The endpoint for the replies of a route; else the key of the configuration and what is wrong with it.
pub(super) fn endpoint(
    route: &str,
    config: &WebhookConfig,
    prefix: &Prefix,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Configured>, (&'static str, String)> {
    let Some(url) = &config.reply_url else {
        let lonely = config.reply_secret.is_some() || config.reply_secret_env.is_some();
        return if lonely {
            Err((".reply_url", "needed where there is a secret for replies".into()))
        } else {
            Ok(None)
        };
    };
    check::form(url).map_err(|error| (".reply_url", error.to_string()))?;
    let secret = match (&config.reply_secret, &config.reply_secret_env) {
        (Some(_), Some(_)) => return Err((".reply_secret", "and reply_secret_env: only one of them".into())),
        (Some(secret), None) => secret.clone(),
        (None, Some(name)) => Secret::new(
            variable(name).ok_or_else(|| (".reply_secret_env", format!("the environment has no {name}")))?.trim(),
        ),
        // Not the secret of the route: whoever may send there must not be able to sign replies.
        (None, None) => {
            return Err((".reply_secret", "replies are signed: say reply_secret or reply_secret_env".into()));
        }
    };
    let secret = signature::Secret::parse(secret.expose()).map_err(|bad| (".reply_secret", bad.to_string()))?;
    Ok(Some(Configured {
        name: format!("{REPLY}{route}"),
        url: url.clone(),
        types: vec!["turn.finished".into()],
        sessions: Some(vec![format!("{}*", prefix.as_str())]),
        secret,
        owner: None,
        source: Some(super::source(route)),
    }))
}
