//! `greenroom token`, `user` and `org`: accounts, straight in the database. Whoever can write the database is trusted, so
//! this is where the first token comes from; a server that runs on it goes by the change before the command returns.

use std::{process::ExitCode, time::Duration};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    FAILED, complain, inside,
    table::table,
    terminal::{self, first_line},
};
use crate::{
    access::{Deed, Principal},
    config::Config,
    ids::{TokenId, UserId},
    protocol::account::{Scope, Token, User, is_account_name},
    secret::{self, SecretHash},
    store::{AccountChange, Accounts, Page, Store},
    timestamp::Timestamp,
};

/// Who stands in the audit for what is done here.
const ACTOR: &str = "cli";

/// `greenroom token`
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is printed alone on stdout, this once
    Create {
        /// Whose it is; made where there is no such user
        #[arg(long, value_name = "NAME", value_parser = name)]
        user: String,
        /// What it allows: read, write, admin, webhook
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', default_value = "read,write", value_parser = scope)]
        scopes: Vec<Scope>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// When it ends, from now, as 30d or 12h [default: never]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// List tokens, without their secrets
    List {
        /// Only those of this user
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// End a token, its logins, and the tokens that were made with them, at once
    Revoke {
        /// Its id, as `token list` shows it
        id: TokenId,
    },
}

/// `greenroom user`
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Make a user
    Create {
        /// 1 to 64 characters out of A-Z a-z 0-9 . _ @ -
        #[arg(value_parser = name)]
        name: String,
    },
    /// List users
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take no token of a user any more; its sessions stay
    Disable {
        /// Its name
        name: String,
    },
    /// Take the tokens of a user again
    Enable {
        /// Its name
        name: String,
    },
}

/// `greenroom org`
#[derive(Debug, Clone, Subcommand)]
pub enum OrgCommand {
    /// Make an organisation
    Create {
        /// 1 to 64 characters out of A-Z a-z 0-9 . _ @ -
        #[arg(value_parser = name)]
        name: String,
    },
    /// List organisations with their members
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a user to an organisation
    Add {
        /// The organisation
        org: String,
        /// The user
        user: String,
    },
    /// Take a user out of an organisation
    Remove {
        /// The organisation
        org: String,
        /// The user
        user: String,
    },
}

/// Any of them.
#[derive(Debug, Clone)]
pub enum Command {
    /// Tokens.
    Token(TokenCommand),
    /// Users.
    User(UserCommand),
    /// Organisations.
    Org(OrgCommand),
}

fn name(text: &str) -> Result<String, String> {
    let wrong = "a name has 1 to 64 characters out of A-Z a-z 0-9 . _ @ - and begins with a letter or a digit";
    if is_account_name(text) { Ok(text.to_owned()) } else { Err(wrong.into()) }
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "a scope is read, write, admin or webhook".into())
}

/// Does it.
pub fn run(config: &Config, command: Command) -> ExitCode {
    match inside::with_accounts(config, async |store| execute(&store, command).await) {
        Ok(Output { stdout, stderr }) => {
            if !stderr.is_empty() {
                terminal::note(&stderr);
            }
            match terminal::print(&stdout) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_closed) => ExitCode::from(FAILED),
            }
        }
        Err(error) => complain(FAILED, &error),
    }
}

/// What a command says.
struct Output {
    stdout: String,
    stderr: String,
}

fn said(stderr: impl Into<String>) -> Output {
    Output { stdout: String::new(), stderr: stderr.into() }
}

fn listed(stdout: String) -> Output {
    Output { stdout, stderr: String::new() }
}

async fn execute(store: &Store, command: Command) -> Result<Output, String> {
    let accounts = store.accounts().await.map_err(|error| error.to_string())?;
    match command {
        Command::Token(command) => tokens(store, &accounts, command).await,
        Command::User(command) => users(store, &accounts, command).await,
        Command::Org(command) => orgs(store, &accounts, command).await,
    }
}

/// Makes a change with its entry in the audit, which is about `owner`.
async fn change(
    store: &Store,
    change: AccountChange,
    (action, owner, detail): (&'static str, &str, Value),
) -> Result<usize, String> {
    let who = Principal { user: ACTOR.into(), ..Principal::local() };
    let entry = Deed { action, session: None, owner, detail }.by(&who);
    store.change_accounts(change, Some(entry)).await.map_err(|error| error.to_string())
}

async fn tokens(store: &Store, accounts: &Accounts, command: TokenCommand) -> Result<Output, String> {
    match command {
        TokenCommand::Create { user, mut scopes, label, expires } => {
            if accounts.users.iter().any(|one| one.name == user && one.disabled) {
                return Err(format!("the user {user} is disabled; `greenroom user enable {user}` first"));
            }
            scopes.sort_unstable();
            scopes.dedup();
            let now = Timestamp::now();
            let token = Token {
                id: uuid::Uuid::now_v7().into(),
                user: user.clone(),
                made_with: None,
                label,
                scopes,
                created_at: now,
                expires_at: expires.map(|time| now.plus(time)),
                last_used_at: None,
                revoked_at: None,
            };
            let secret = secret::generate(secret::TOKEN_PREFIX).map_err(|error| error.to_string())?;
            let note = format!("[token {} of {user}: {}; it is shown this once]", token.id, scope_names(&token));
            let detail = json!({"token": token.id, "scopes": token.scopes});
            let new = AccountChange::CreateToken {
                hash: SecretHash::of(&secret),
                user: User { id: UserId::new(), name: user.clone(), disabled: false, created_at: now },
                token,
            };
            change(store, new, ("token.create", &user, detail)).await?;
            Ok(Output { stdout: format!("{secret}\n"), stderr: note })
        }
        TokenCommand::List { user, json } => {
            let tokens = all_tokens(store, user.as_deref()).await?;
            Ok(listed(if json { format!("{:#}\n", json!(tokens)) } else { token_table(&tokens) }))
        }
        TokenCommand::Revoke { id } => {
            let token = store.token(id).await.map_err(|error| error.to_string())?;
            let token = token.ok_or_else(|| format!("there is no token {id}"))?;
            let revoke = AccountChange::RevokeToken { id, at: Timestamp::now() };
            match change(store, revoke, ("token.revoke", &token.user, json!({"token": id}))).await? {
                0 => Ok(said(format!("[{id} was revoked before]"))),
                1 => Ok(said(format!("[{id} of {} is revoked]", token.user))),
                more => Ok(said(format!("[{id} of {} is revoked, and {} made with it]", token.user, more - 1))),
            }
        }
    }
}

async fn all_tokens(store: &Store, user: Option<&str>) -> Result<Vec<Token>, String> {
    let (mut tokens, mut after) = (Vec::new(), None);
    loop {
        let page = Page { limit: 1000, after, before: None, ascending: true };
        let page = store.tokens(user, &page).await.map_err(|error| error.to_string())?;
        after = page.data.last().map(|token| token.id.to_string());
        tokens.extend(page.data);
        if !page.has_more {
            return Ok(tokens);
        }
    }
}

fn scope_names(token: &Token) -> String {
    token.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",")
}

fn token_table(tokens: &[Token]) -> String {
    let now = Timestamp::now();
    let when = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), Timestamp::to_rfc3339);
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|token| {
            let state = match token {
                Token { revoked_at: Some(_), .. } => "revoked",
                Token { expires_at: Some(end), .. } if *end <= now => "expired",
                _ => "live",
            };
            let label = first_line(token.label.as_deref().unwrap_or_default(), 40);
            let times = [when(token.expires_at), when(token.last_used_at)];
            let [expires, used] = times;
            vec![token.id.to_string(), token.user.clone(), scope_names(token), state.into(), expires, used, label]
        })
        .collect();
    table(&["ID", "USER", "SCOPES", "STATE", "EXPIRES", "LAST USED", "LABEL"], &rows)
}

async fn users(store: &Store, accounts: &Accounts, command: UserCommand) -> Result<Output, String> {
    match command {
        UserCommand::Create { name } => {
            let user = User { id: UserId::new(), name: name.clone(), disabled: false, created_at: Timestamp::now() };
            match change(store, AccountChange::CreateUser(user), ("user.create", &name, json!({}))).await? {
                0 => Err(format!("there is a user {name} already")),
                _ => Ok(said(format!("[user {name} is made; give it a token with `greenroom token create`]"))),
            }
        }
        UserCommand::List { json } => {
            if json {
                return Ok(listed(format!("{:#}\n", json!(accounts.users))));
            }
            let row = |user: &User| {
                let live = accounts.tokens.iter().filter(|(_, token)| token.user == user.name).count();
                let orgs = accounts.members.iter().filter(|(_, member)| *member == user.name);
                let orgs: Vec<&str> = orgs.map(|(org, _)| org.as_str()).collect();
                let state = if user.disabled { "disabled" } else { "enabled" };
                vec![user.name.clone(), state.into(), live.to_string(), orgs.join(","), user.created_at.to_rfc3339()]
            };
            let rows: Vec<Vec<String>> = accounts.users.iter().map(row).collect();
            Ok(listed(table(&["USER", "STATE", "TOKENS", "ORGANISATIONS", "MADE"], &rows)))
        }
        UserCommand::Disable { name } => switch(store, accounts, name, true).await,
        UserCommand::Enable { name } => switch(store, accounts, name, false).await,
    }
}

async fn switch(store: &Store, accounts: &Accounts, name: String, disabled: bool) -> Result<Output, String> {
    known_user(accounts, &name)?;
    let (action, state) = if disabled { ("user.disable", "disabled") } else { ("user.enable", "enabled") };
    let switch = AccountChange::DisableUser { name: name.clone(), disabled };
    match change(store, switch, (action, &name, json!({}))).await? {
        0 => Ok(said(format!("[user {name} was {state} before]"))),
        _ => Ok(said(format!("[user {name} is {state}]"))),
    }
}

fn known_user(accounts: &Accounts, name: &str) -> Result<(), String> {
    let known = accounts.users.iter().any(|user| user.name == name);
    known.then_some(()).ok_or_else(|| format!("there is no user {name}"))
}

async fn orgs(store: &Store, accounts: &Accounts, command: OrgCommand) -> Result<Output, String> {
    let known = |org: &String| {
        accounts.orgs.contains(org).then_some(()).ok_or_else(|| format!("there is no organisation {org}"))
    };
    match command {
        OrgCommand::Create { name } => {
            let create = AccountChange::CreateOrg { name: name.clone(), at: Timestamp::now() };
            match change(store, create, ("org.create", ACTOR, json!({"org": name}))).await? {
                0 => Err(format!("there is an organisation {name} already")),
                _ => Ok(said(format!("[organisation {name} is made; add users with `greenroom org add {name} USER`]"))),
            }
        }
        OrgCommand::List { json } => {
            let members = |org: &String| {
                let of_org = accounts.members.iter().filter(move |(one, _)| one == org);
                of_org.map(|(_, user)| user.clone()).collect::<Vec<String>>()
            };
            if json {
                let orgs: Vec<Value> =
                    accounts.orgs.iter().map(|org| json!({"name": org, "members": members(org)})).collect();
                return Ok(listed(format!("{:#}\n", json!(orgs))));
            }
            let rows: Vec<Vec<String>> =
                accounts.orgs.iter().map(|org| vec![org.clone(), members(org).join(" ")]).collect();
            Ok(listed(table(&["ORGANISATION", "MEMBERS"], &rows)))
        }
        OrgCommand::Add { org, user } => {
            known(&org)?;
            known_user(accounts, &user)?;
            let join = AccountChange::Join { org: org.clone(), user: user.clone(), at: Timestamp::now() };
            match change(store, join, ("org.add", &user, json!({"org": org}))).await? {
                0 => Ok(said(format!("[{user} was a member of {org} before]"))),
                _ => Ok(said(format!("[{user} is a member of {org}]"))),
            }
        }
        OrgCommand::Remove { org, user } => {
            known(&org)?;
            let leave = AccountChange::Leave { org: org.clone(), user: user.clone() };
            match change(store, leave, ("org.remove", &user, json!({"org": org}))).await? {
                0 => Err(format!("{user} is no member of {org}")),
                _ => Ok(said(format!("[{user} is no member of {org} any more]"))),
            }
        }
    }
}
