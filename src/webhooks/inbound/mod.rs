//! Inbound webhooks: others send messages with a signature in place of a token.
//!
//! `[webhooks.ROUTE]` becomes a [`Route`] at the start, so that a mistake stops the start and not a message. A request is
//! taken in this order: [`Check::verify`] on the raw body, and nothing of the body is looked at before; then
//! [`Route::read`], which says what the body asks for. Pure; whoever calls has the time and the network.
//!
//! Invariant: whatever a body holds, the session that it reaches begins with the prefix of its route, and a value in a
//! template for the key stays between the separators that the template has written.

mod check;
mod headers;
mod key;
mod read;
mod reply;
mod stats;
mod template;

use std::{collections::BTreeMap, sync::Arc};

pub use check::{Check, Verified};
pub use headers::Headers;
pub use read::{Ask, Message};
pub use stats::{Outcome, RouteStatus, Stats};

use self::{
    key::Prefix,
    template::{Condition, Template},
};
use crate::{
    access::Principal,
    config::{Config, Secret, Verify, WebhookConfig},
    protocol::{Policy, account::is_account_name},
    webhooks::outbound::Configured,
};

/// The longest name of a route.
const MAX_NAME: usize = 64;

/// A route that is open.
#[derive(Debug)]
pub struct Route {
    /// Its name in the path and in the configuration.
    pub name: String,
    /// How senders are told from others.
    pub check: Check,
    /// Whose sessions it sends to.
    pub owner: String,
    /// What it went through.
    pub stats: Stats,
    prefix: Prefix,
    text: Option<Template>,
    session_key: Option<Template>,
    when: Option<Condition>,
    agent: Option<String>,
    policy: Policy,
    reply: Option<Configured>,
}

/// The `source` of the turns of a route.
fn source(route: &str) -> String {
    format!("webhook:{route}")
}

impl Route {
    /// The route of a configuration. `variable` reads the server's environment.
    ///
    /// # Errors
    /// One line: the key, and what is wrong with it.
    pub fn new(
        name: &str,
        config: &Config,
        route: &WebhookConfig,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let bad = |key: &str, what: &str| format!("webhooks.{name}{key}: {what}");
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        // A path cannot hold the two folders, not even encoded.
        if !(1..=MAX_NAME).contains(&name.len()) || !plain(name) || matches!(name, "." | "..") {
            return Err(bad("", "the name of a route has 1 to 64 characters out of A-Z, a-z, 0-9 and . _ -"));
        }
        let verify = route.verify.ok_or_else(|| bad(".verify", "say standard, github, slack, secret or none"))?;
        let secrets = secrets(route, variable).map_err(|(key, what)| bad(key, &what))?;
        if verify == Verify::None && !config.server.bind.ip().is_loopback() {
            let what = format!("none is for a server on a loopback address, and server.bind is {}", config.server.bind);
            return Err(bad(".verify", &what));
        }
        let check = Check::new(verify, secrets).map_err(|(key, what)| bad(key, &what))?;
        let prefix = Prefix::new(route.prefix.as_deref(), name).map_err(|what| bad(".prefix", &what))?;
        let template = |key: &str, source: &Option<String>, make: fn(&str) -> Result<Template, String>| {
            source.as_deref().map(make).transpose().map_err(|what| bad(key, &what))
        };
        if let Some(agent) = route.agent.as_deref().filter(|agent| *agent != "echo") {
            let known: Vec<&str> = config.agents.keys().map(String::as_str).collect();
            if !known.contains(&agent) {
                return Err(bad(".agent", &format!("no agent {agent:?}; there are: echo {}", known.join(" "))));
            }
        }
        let owner = route.owner.clone().unwrap_or_else(|| Principal::LOCAL.into());
        if owner != Principal::LOCAL && !is_account_name(&owner) {
            return Err(bad(".owner", &format!("{owner:?} cannot be the name of a user")));
        }
        let begin = route.session_key.as_deref().map(template::beginning);
        if let Some((begin, _)) = begin.filter(|(begin, more)| !prefix.may_begin(begin, *more)) {
            let what = format!(
                "its keys begin with {begin:?}, and the route sends to sessions that begin with {:?} alone",
                prefix.as_str()
            );
            return Err(bad(".session_key", &what));
        }
        Ok(Self {
            check,
            owner,
            reply: reply::endpoint(name, route, &prefix, variable).map_err(|(key, what)| bad(key, &what))?,
            prefix,
            text: template(".text", &route.text, Template::for_text)?,
            session_key: template(".session_key", &route.session_key, Template::for_key)?,
            when: route.when.as_deref().map(Condition::new).transpose().map_err(|what| bad(".when", &what))?,
            agent: route.agent.clone(),
            policy: route.policy,
            stats: Stats::new(name),
            name: name.to_owned(),
        })
    }

    /// Where it is and how it does.
    #[must_use]
    pub fn status(&self) -> RouteStatus {
        self.stats.status(self)
    }
}

/// All secrets of a route; else the key of the configuration and what is wrong with it.
fn secrets(
    route: &WebhookConfig,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Secret>, (&'static str, String)> {
    let mut secrets = route.secret.clone();
    for name in &route.secret_env {
        let value = variable(name).ok_or_else(|| (".secret_env", format!("the environment has no {name}")))?;
        secrets.push(Secret::new(value.trim()));
    }
    Ok(secrets)
}

/// All routes that are open, by name.
#[derive(Debug, Default)]
pub struct Routes(BTreeMap<String, Arc<Route>>);

impl Routes {
    /// The routes of a configuration; those that are not enabled are not looked at.
    ///
    /// # Errors
    /// One line: the key, and what is wrong with it.
    pub fn new(config: &Config, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let enabled = config.webhooks.iter().filter(|(_, route)| route.enabled);
        let made = enabled.map(|(name, route)| {
            Route::new(name, config, route, variable).map(|route| (name.clone(), Arc::new(route)))
        });
        made.collect::<Result<_, _>>().map(Self)
    }

    /// The route of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Route>> {
        self.0.get(name)
    }

    /// The endpoints that are told of the ends of turns.
    #[must_use]
    pub fn replies(&self) -> Vec<Configured> {
        self.iter().filter_map(|route| route.reply.clone()).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.values().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let config: Config = toml::from_str(text).unwrap();
        let environment = |name: &str| (name == "HOOK").then(|| "hunter2".to_owned());
        match Routes::new(&config, &environment) {
            Ok(routes) => format!("{} routes", routes.iter().count()),
            Err(line) => {
                assert!(!line.contains('\n') && !line.contains("hunter2"), "{line}");
                line
            }
        }
    }

    #[test]
    fn mistakes_are_one_line_with_the_key() {
        for (text, expected) in [
            ("[webhooks.a]\nverify = 'github'\nsecret_env = 'HOOK'", "1 routes"),
            ("[webhooks.a]\nverify = 'none'", "1 routes"),
            ("[webhooks.a]\nenabled = false", "0 routes"),
            ("[webhooks.a]\nsecret = 'x'", "webhooks.a.verify: say"),
            ("[webhooks.'a b']\nverify = 'none'", "webhooks.a b: the name"),
            ("[webhooks.a]\nverify = 'github'", "webhooks.a.secret: "),
            ("[webhooks.a]\nverify = 'github'\nsecret = ''", "webhooks.a.secret: "),
            ("[webhooks.a]\nverify = 'github'\nsecret = []", "webhooks.a.secret: "),
            (
                "[webhooks.a]\nverify = 'github'\nsecret_env = 'NOPE'",
                "webhooks.a.secret_env: the environment has no NOPE",
            ),
            ("[webhooks.a]\nverify = 'standard'\nsecret = 'hunter2'", "webhooks.a.secret: a secret of Standard"),
            ("[webhooks.a]\nverify = 'none'\nsecret = 'hunter2'", "webhooks.a.secret: "),
            ("[server]\nbind = '0.0.0.0:1'\n[webhooks.a]\nverify = 'none'", "webhooks.a.verify: none is for"),
            ("[webhooks.a]\nverify = 'none'\nprefix = ''", "webhooks.a.prefix: "),
            ("[webhooks.a]\nverify = 'none'\nprefix = 'a/b'", "webhooks.a.prefix: "),
            ("[webhooks.a]\nverify = 'none'\ntext = '{{ a'", "webhooks.a.text: "),
            ("[webhooks.a]\nverify = 'none'\ntext = '{{ a.b | nope }}'", "webhooks.a.text: "),
            ("[webhooks.a]\nverify = 'none'\nsession_key = '{% if %}'", "webhooks.a.session_key: "),
            ("[webhooks.a]\nverify = 'none'\nsession_key = 'ci:{{ id }}'", "webhooks.a.session_key: its keys begin"),
            ("[webhooks.a]\nverify = 'none'\nsession_key = 'main'", "webhooks.a.session_key: its keys begin"),
            ("[webhooks.a]\nverify = 'none'\nsession_key = 'webhook:a:{{ id }}'", "1 routes"),
            ("[webhooks.a]\nverify = 'none'\nsession_key = '{{ route }}:{{ id }}'", "1 routes"),
            ("[webhooks.a]\nverify = 'none'\nprefix = 'ci:'\nsession_key = 'ci'", "webhooks.a.session_key: its keys"),
            ("[webhooks.a]\nverify = 'none'\nprefix = 'ci:'\nsession_key = 'ci{{ sep }}x'", "1 routes"),
            ("[webhooks.a]\nverify = 'none'\nwhen = 'a =='", "webhooks.a.when: "),
            ("[webhooks.a]\nverify = 'none'\nagent = 'nobody'", "webhooks.a.agent: no agent"),
            ("[webhooks.a]\nverify = 'none'\nreply_url = 'https://h/x'", "webhooks.a.reply_secret: replies are signed"),
            ("[webhooks.a]\nverify = 'none'\nreply_secret = 'x'", "webhooks.a.reply_url: needed"),
            ("[webhooks.a]\nverify = 'none'\nreply_url = 'ftp://h'\nreply_secret = 'x'", "webhooks.a.reply_url: "),
            (
                "[webhooks.a]\nverify = 'none'\nreply_url = 'https://h'\nreply_secret = 'x'",
                "webhooks.a.reply_secret: a secret",
            ),
            ("[webhooks.a]\nverify = 'none'\nowner = 'a b'", "webhooks.a.owner: "),
        ] {
            let line = line(text);
            assert!(line.starts_with(expected), "{text}\n{line}");
        }
    }
}
