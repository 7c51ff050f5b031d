//! The task behind one session: for each prompt a process, from its start to its end.
//!
//! Invariants: as for every adapter, each prompt gets exactly one `Ended`, after the whole process group is gone; nothing
//! waits without listening for the kill.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt as _,
    sync::mpsc,
    time::{sleep_until, timeout},
};

use super::{
    invocation::{self, Invocation, MAX_ARGUMENT, by_argument, invocation},
    output::Output,
};
use crate::{
    agents::{
        AdapterSide, AgentCommand, AgentEvent, OpenSpec, Opened, Outcome, Prompt,
        process::{Process, Spawn, Stopped},
        program::{Host, Program, REPLAY_LIMIT, STDERR_IN_MESSAGE, Stop, keep_all, replay, without_permissions},
    },
    protocol::{
        Message,
        event::{DeltaKind, Resumed},
    },
};

/// How long the rest of stdout is read after the process has ended; somebody else may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(500);
/// Room for the words around a replayed conversation, in an argument.
const AROUND_REPLAY: usize = 1024;

/// Runs an agent until its session lets go.
pub(super) async fn run(program: Arc<Program>, spec: OpenSpec, side: AdapterSide) {
    let AdapterSide { mut commands, events, killed } = side;
    let mut host = Host::new(events, killed);
    let mut session = match Session::open(program, spec, &mut host).await {
        Ok(session) => session,
        Err(stop) => return host.end_unstarted(stop).await,
    };
    loop {
        let command = tokio::select! {
            biased;
            () = host.killed.cancelled() => return,
            command = commands.recv() => command,
        };
        match command {
            Some(AgentCommand::Prompt(prompt)) => match session.turn(prompt, &mut commands, &mut host).await {
                Ok(()) => {}
                Err(Broken { process: Some(process), stop, cancelling }) => {
                    return host.end(&session.program, process, stop, 1, cancelling).await;
                }
                Err(Broken { process: None, .. }) => return,
            },
            Some(AgentCommand::SetModel(model)) => session.spec.model = Some(model),
            Some(AgentCommand::SetMode(mode)) => session.spec.mode = Some(mode),
            Some(AgentCommand::Cancel | AgentCommand::Steer { .. } | AgentCommand::Answer { .. }) => {}
            Some(AgentCommand::Close) | None => return,
        }
    }
}

/// A turn that cannot be brought to its own end, as the adapter itself must end.
struct Broken {
    process: Option<Process>,
    stop: Stop,
    cancelling: bool,
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self { process: None, stop, cancelling: false }
    }
}

/// How the process came to its end.
enum End {
    /// By itself.
    Own,
    /// It was asked to.
    Cancelled,
}

struct Session {
    program: Arc<Program>,
    spec: OpenSpec,
    /// The conversation so far.
    transcript: Vec<Message>,
}

impl Session {
    /// Looks whether there is a program at all, so that a fallback can take the turn, and reads the conversation so far.
    async fn open(program: Arc<Program>, spec: OpenSpec, host: &mut Host) -> Result<Self, Stop> {
        if let Some(missing) = program.find().reason {
            return Err(Stop::failed("agent_unavailable", missing));
        }
        let limit = program.limits.open_timeout.0;
        let loaded = tokio::select! {
            biased;
            () = host.killed.cancelled() => return Err(Stop::Killed),
            loaded = timeout(limit, spec.transcript.load()) => loaded.unwrap_or_else(|_| Err("no answer in time".into())),
        };
        let mut fault = None;
        let transcript = match loaded {
            Ok(messages) => messages,
            Err(error) => {
                log::warn!(session = spec.session.as_str(); "transcript cannot be read for a replay: {error}");
                let message = "the agent could not be given the conversation so far".to_owned();
                fault = Some(AgentEvent::Fault { code: "replay_failed".into(), message });
                Vec::new()
            }
        };
        let resumed = if transcript.is_empty() { Resumed::New } else { Resumed::Replayed };
        let model = spec.model.clone().or_else(|| program.config.model.clone());
        host.emit_opened(Opened { resumed: Some(resumed), model, ..Opened::default() }).await?;
        host.emit_all(fault).await?;
        Ok(Self { program, spec, transcript })
    }

    async fn turn(
        &mut self,
        prompt: Prompt,
        commands: &mut mpsc::Receiver<AgentCommand>,
        host: &mut Host,
    ) -> Result<(), Broken> {
        let (process, stdin) = match self.start(prompt, host).await? {
            Ok(started) => started,
            Err(outcome) => return Ok(host.emit(AgentEvent::Ended(outcome)).await?),
        };
        let mut running = Running { process, output: Output::new(self.program.limits.max_line.bytes()) };
        let end = match running.run(stdin.as_bytes(), commands, host).await {
            Ok(end) => end,
            Err((stop, cancelling)) => return Err(Broken { process: Some(running.process), stop, cancelling }),
        };
        let Running { process, mut output } = running;
        let stopped = process.stop(STDERR_IN_MESSAGE).await;
        let rest = output.finish();
        host.emit_all(rest).await?;
        let outcome = match end {
            End::Cancelled => Outcome::Cancelled,
            End::Own => outcome(&self.program.name, &stopped, &output),
        };
        if matches!(outcome, Outcome::Completed { .. }) && output.is_silent() {
            let text = silence(&stopped, output.stream.is_spoken());
            host.emit(AgentEvent::Delta { kind: DeltaKind::Text, text }).await?;
        }
        Ok(host.emit(AgentEvent::Ended(outcome)).await?)
    }

    /// Starts the process of a turn: it, and what is to be written to its stdin; or the end of the turn.
    async fn start(&mut self, prompt: Prompt, host: &mut Host) -> Result<Result<(Process, String), Outcome>, Stop> {
        let (config, name) = (&self.program.config, self.program.name.as_str());
        match without_permissions(name, config.allow_bypass, &prompt.permission_mode) {
            Ok(fault) => host.emit_all(fault).await?,
            Err(outcome) => return Ok(Err(outcome)),
        }
        if let Some(mode) = prompt.mode.as_ref().or(self.spec.mode.as_ref()).or(config.mode.as_ref()) {
            let message = format!("agent `{name}`: mode `{mode}` was asked for, and a program has no modes");
            return Ok(Err(Outcome::failed("model_not_found", message)));
        }
        let (files, faults) = keep_all(&self.spec.cwd, prompt.attachments.to_vec()).await;
        host.emit_all(faults).await?;
        let mut spawn = spawn(&self.program, &self.spec);
        let room = if by_argument(&spawn.args, config.prompt_by) {
            MAX_ARGUMENT.saturating_sub(prompt.text.len() + files.len() + AROUND_REPLAY).min(REPLAY_LIMIT)
        } else {
            REPLAY_LIMIT
        };
        let text = [replay(&self.transcript, room).unwrap_or_default(), prompt.text, files].concat();
        let model = prompt.model.as_deref().or(self.spec.model.as_deref()).or(config.model.as_deref());
        let turn = invocation::Turn {
            agent: name,
            session: self.spec.session.as_str(),
            prompt: &text,
            model,
            prompt_by: config.prompt_by,
        };
        let Invocation { args, env, stdin } = match invocation(&spawn.args, spawn.env, turn) {
            Ok(invocation) => invocation,
            Err(outcome) => return Ok(Err(outcome)),
        };
        (spawn.args, spawn.env) = (args, env);
        Ok(match Process::spawn(spawn) {
            Ok(process) => Ok((process, stdin)),
            Err(error) => Err(Outcome::failed("agent_unavailable", self.program.unavailable(&error))),
        })
    }
}

/// The call as configured, for this session.
fn spawn(program: &Program, spec: &OpenSpec) -> Spawn {
    program.spawn(Vec::new(), spec.session.as_str(), spec.cwd.clone(), Arc::clone(&spec.processes))
}

struct Running {
    process: Process,
    output: Output,
}

impl Running {
    /// Writes and reads until the process has ended, or is asked to. The error has true when the turn was cancelled.
    async fn run(
        &mut self,
        mut stdin: &[u8],
        commands: &mut mpsc::Receiver<AgentCommand>,
        host: &mut Host,
    ) -> Result<End, (Stop, bool)> {
        let (mut ended, mut silent) = (None::<Instant>, false);
        if stdin.is_empty() {
            self.process.stdin = None;
        }
        while !(silent && ended.is_some()) {
            let (pipe, stdout, exited) = self.process.parts();
            let writing = pipe.is_some();
            let write = async {
                match pipe {
                    Some(pipe) => pipe.write(stdin).await,
                    None => Ok(0),
                }
            };
            tokio::select! {
                biased;
                () = host.killed.cancelled() => return Err((Stop::Killed, false)),
                command = commands.recv() => match command {
                    Some(AgentCommand::Cancel) => return Ok(End::Cancelled),
                    Some(AgentCommand::Close) | None => return Err((Stop::Killed, false)),
                    // Nothing of it fits a program that runs: it takes no text, asks nothing and has one model.
                    Some(_) => {}
                },
                written = write, if writing => {
                    // A program that does not read its stdin is none of our business.
                    stdin = written.ok().filter(|written| *written > 0).and_then(|written| stdin.get(written..)).unwrap_or_default();
                    if stdin.is_empty() {
                        self.process.stdin = None;
                    }
                }
                chunk = stdout.chunk(), if !silent => match chunk {
                    Ok(Some(chunk)) => {
                        let events = self.output.push(&chunk);
                        host.emit_all(events).await.map_err(|stop| (stop, false))?;
                    }
                    Ok(None) | Err(_) => silent = true,
                },
                _ = exited, if ended.is_none() => ended = Some(Instant::now() + DRAIN),
                () = sleep_until(ended.unwrap_or_else(Instant::now).into()), if ended.is_some() => silent = true,
            }
        }
        Ok(End::Own)
    }
}

/// How the turn of a process that has ended by itself has gone.
fn outcome(agent: &str, stopped: &Stopped, output: &Output) -> Outcome {
    if let Some(failure) = &output.stream.failure {
        return Outcome::failed("agent_error", format!("agent `{agent}`: {failure}"));
    }
    match stopped.status {
        Some(status) if status.success() => Outcome::Completed { reason: output.stream.reason.clone() },
        _ => Outcome::failed("agent_error", format!("agent `{agent}` {}", stopped.describe())),
    }
}

/// The answer of a program that has ended well and said nothing.
fn silence(stopped: &Stopped, spoken: bool) -> String {
    match (stopped.stderr.as_str(), spoken) {
        ("", true) => "(no text output)".to_owned(),
        ("", false) => "(no output)".to_owned(),
        (stderr, _) => stderr.to_owned(),
    }
}
