//! Accounts: users, tokens, logins, organisations. Changes are rare, and every process that makes one raises a version
//! that running servers watch; servers hold all that counts in memory.

use diesel::prelude::*;

use super::{
    Page, Paged, Store, StoreError,
    audit::insert as insert_audit,
    codec::{optional_text, parse, parse_optional, text},
    connection::{AnyConnection, at_one_moment, each},
    fault::Fault,
    job::{Reply, Write},
    page::{Walk, walk},
    schema::{account_state, logins, org_members, orgs, tokens, users},
};
use crate::{
    ids::TokenId,
    protocol::account::{AuditEntry, Scope, Token, User},
    secret::SecretHash,
    timestamp::Timestamp,
};

/// A browser that is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRecord {
    /// The hash of its cookie.
    pub hash: SecretHash,
    /// The token that it stands for.
    pub token: TokenId,
    /// When it logged in.
    pub created_at: Timestamp,
    /// When it has to log in again.
    pub expires_at: Timestamp,
}

/// A change of accounts.
#[derive(Debug, Clone)]
pub enum AccountChange {
    /// A user, unless there is one of that name.
    CreateUser(User),
    /// Whether the tokens of a user are taken.
    DisableUser {
        /// Its name.
        name: String,
        /// True when they are not.
        disabled: bool,
    },
    /// A token, and its user where there is none of that name.
    CreateToken {
        /// The token.
        token: Token,
        /// The hash of its secret.
        hash: SecretHash,
        /// The user as it is when it is new.
        user: User,
    },
    /// The end of a token, and of those that were made with a login of it.
    RevokeToken {
        /// Which.
        id: TokenId,
        /// When.
        at: Timestamp,
    },
    /// A login.
    LogIn(LoginRecord),
    /// The end of a login.
    LogOut(SecretHash),
    /// An organisation, unless there is one of that name.
    CreateOrg {
        /// Its name.
        name: String,
        /// When.
        at: Timestamp,
    },
    /// A member of an organisation; both are there.
    Join {
        /// The organisation.
        org: String,
        /// The user.
        user: String,
        /// When.
        at: Timestamp,
    },
    /// The end of a membership.
    Leave {
        /// The organisation.
        org: String,
        /// The user.
        user: String,
    },
    /// Forgets logins that have ended before this moment.
    SweepLogins(Timestamp),
}

/// All accounts at one moment.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// Raised by every change.
    pub version: i64,
    /// True when there is a token, or was one.
    pub any_token: bool,
    /// Users, by name.
    pub users: Vec<User>,
    /// Tokens that are not revoked.
    pub tokens: Vec<(SecretHash, Token)>,
    /// Logins.
    pub logins: Vec<LoginRecord>,
    /// Organisations, by name.
    pub orgs: Vec<String>,
    /// Organisation and member.
    pub members: Vec<(String, String)>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = tokens, treat_none_as_default_value = false)]
struct TokenRow {
    id: String,
    user_name: String,
    hash: String,
    made_with: Option<String>,
    label: Option<String>,
    scopes: String,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl TokenRow {
    fn new(token: &Token, hash: SecretHash) -> Self {
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        Self {
            id: token.id.to_string(),
            user_name: text(&token.user),
            hash: hash.to_hex(),
            made_with: token.made_with.map(|id| id.to_string()),
            label: optional_text(token.label.as_ref()),
            scopes: scopes.join(","),
            created_at: token.created_at.0,
            expires_at: token.expires_at.map(|at| at.0),
            last_used_at: token.last_used_at.map(|at| at.0),
            revoked_at: token.revoked_at.map(|at| at.0),
        }
    }

    fn read(self) -> Result<(SecretHash, Token), Fault> {
        let scope = |name: &str| Scope::parse(name).ok_or_else(|| Fault::Row(format!("tokens.scopes: {name:?}")));
        let names = self.scopes.split(',').filter(|name| !name.is_empty());
        let token = Token {
            id: parse("tokens.id", &self.id)?,
            user: self.user_name,
            made_with: parse_optional("tokens.made_with", self.made_with.as_deref())?,
            label: self.label,
            scopes: names.map(scope).collect::<Result<_, _>>()?,
            created_at: Timestamp(self.created_at),
            expires_at: self.expires_at.map(Timestamp),
            last_used_at: self.last_used_at.map(Timestamp),
            revoked_at: self.revoked_at.map(Timestamp),
        };
        Ok((read_hash("tokens.hash", &self.hash)?, token))
    }
}

fn read_hash(column: &str, hex: &str) -> Result<SecretHash, Fault> {
    SecretHash::from_hex(hex).ok_or_else(|| Fault::Row(format!("{column}: a hash of another form")))
}

/// Makes a change, with its entry in the audit. How many rows it changed; 0 means that there was nothing to change,
/// and then nothing is written.
pub(super) fn change(
    connection: &mut AnyConnection,
    change: &AccountChange,
    audit: Option<&AuditEntry>,
) -> Result<usize, Fault> {
    let changed = apply(connection, change)?;
    if changed > 0 {
        diesel::update(account_state::table)
            .set(account_state::version.eq(account_state::version + 1))
            .execute(connection)?;
        if let Some(entry) = audit {
            insert_audit(connection, [entry])?;
        }
    }
    Ok(changed)
}

fn apply(connection: &mut AnyConnection, change: &AccountChange) -> Result<usize, Fault> {
    match change {
        AccountChange::CreateUser(user) => insert_user(connection, user),
        AccountChange::DisableUser { name, disabled } => {
            let other = users::table.filter(users::name.eq(text(name))).filter(users::disabled.ne(*disabled));
            Ok(diesel::update(other).set(users::disabled.eq(*disabled)).execute(connection)?)
        }
        AccountChange::CreateToken { token, hash, user } => {
            insert_user(connection, user)?;
            Ok(diesel::insert_into(tokens::table).values(TokenRow::new(token, *hash)).execute(connection)?)
        }
        AccountChange::RevokeToken { id, at } => {
            let mut revoked = 0;
            let mut ids = vec![id.to_string()];
            while let Some(id) = ids.pop() {
                let live = tokens::table.filter(tokens::id.eq(id.clone())).filter(tokens::revoked_at.is_null());
                revoked += diesel::update(live).set(tokens::revoked_at.eq(at.0)).execute(connection)?;
                diesel::delete(logins::table.filter(logins::token_id.eq(id.clone()))).execute(connection)?;
                let made = tokens::table.filter(tokens::made_with.eq(id)).select(tokens::id);
                ids.extend(made.load::<String>(connection)?);
            }
            Ok(revoked)
        }
        AccountChange::LogIn(login) => {
            let values = (
                logins::hash.eq(login.hash.to_hex()),
                logins::token_id.eq(login.token.to_string()),
                logins::created_at.eq(login.created_at.0),
                logins::expires_at.eq(login.expires_at.0),
            );
            Ok(diesel::insert_into(logins::table).values(values).execute(connection)?)
        }
        AccountChange::LogOut(hash) => {
            Ok(diesel::delete(logins::table.filter(logins::hash.eq(hash.to_hex()))).execute(connection)?)
        }
        AccountChange::CreateOrg { name, at } => {
            let values = || (orgs::name.eq(text(name)), orgs::created_at.eq(at.0));
            Ok(each!(connection, c => diesel::insert_into(orgs::table)
                .values(values())
                .on_conflict_do_nothing()
                .execute(c))?)
        }
        AccountChange::Join { org, user, at } => {
            let values = || {
                let names = (org_members::org.eq(text(org)), org_members::user_name.eq(text(user)));
                (names, org_members::created_at.eq(at.0))
            };
            Ok(each!(connection, c => diesel::insert_into(org_members::table)
                .values(values())
                .on_conflict_do_nothing()
                .execute(c))?)
        }
        AccountChange::Leave { org, user } => {
            let member =
                org_members::table.filter(org_members::org.eq(text(org))).filter(org_members::user_name.eq(text(user)));
            Ok(diesel::delete(member).execute(connection)?)
        }
        AccountChange::SweepLogins(before) => {
            Ok(diesel::delete(logins::table.filter(logins::expires_at.lt(before.0))).execute(connection)?)
        }
    }
}

fn insert_user(connection: &mut AnyConnection, user: &User) -> Result<usize, Fault> {
    let values = || {
        (
            users::name.eq(text(&user.name)),
            users::id.eq(user.id.to_string()),
            users::disabled.eq(user.disabled),
            users::created_at.eq(user.created_at.0),
        )
    };
    Ok(each!(connection, c => diesel::insert_into(users::table)
        .values(values())
        .on_conflict_do_nothing()
        .execute(c))?)
}

/// Notes when tokens were last used.
pub(super) fn used(connection: &mut AnyConnection, uses: &[(TokenId, Timestamp)]) -> Result<(), Fault> {
    for (id, at) in uses {
        let token = tokens::table.filter(tokens::id.eq(id.to_string()));
        diesel::update(token).set(tokens::last_used_at.eq(at.0)).execute(connection)?;
    }
    Ok(())
}

/// Notes that a running server goes by this version.
pub(super) fn seen(connection: &mut AnyConnection, version: i64) -> Result<(), Fault> {
    diesel::update(account_state::table.filter(account_state::seen.lt(version)))
        .set(account_state::seen.eq(version))
        .execute(connection)?;
    Ok(())
}

fn load(connection: &mut AnyConnection) -> Result<Accounts, Fault> {
    let version = account_state::table.select(account_state::version).first::<i64>(connection)?;
    let any_token = tokens::table.select(tokens::id).first::<String>(connection).optional()?.is_some();
    let rows = tokens::table.filter(tokens::revoked_at.is_null()).select(TokenRow::as_select()).load(connection)?;
    let tokens = rows.into_iter().map(TokenRow::read).collect::<Result<_, _>>()?;
    let rows = logins::table.select((logins::hash, logins::token_id, logins::created_at, logins::expires_at)).load::<(
        String,
        String,
        i64,
        i64,
    )>(
        connection,
    )?;
    let login = |(hash, token, created_at, expires_at): (String, String, i64, i64)| -> Result<_, Fault> {
        Ok(LoginRecord {
            hash: read_hash("logins.hash", &hash)?,
            token: parse("logins.token_id", &token)?,
            created_at: Timestamp(created_at),
            expires_at: Timestamp(expires_at),
        })
    };
    let logins = rows.into_iter().map(login).collect::<Result<_, _>>()?;
    let orgs = orgs::table.select(orgs::name).order(orgs::name.asc()).load(connection)?;
    let members = org_members::table
        .select((org_members::org, org_members::user_name))
        .order((org_members::org.asc(), org_members::user_name.asc()))
        .load(connection)?;
    Ok(Accounts { version, any_token, users: all_users(connection)?, tokens, logins, orgs, members })
}

fn all_users(connection: &mut AnyConnection) -> Result<Vec<User>, Fault> {
    let rows = users::table
        .select((users::id, users::name, users::disabled, users::created_at))
        .order(users::name.asc())
        .load::<(String, String, bool, i64)>(connection)?;
    let read = |(id, name, disabled, created_at): (String, String, bool, i64)| -> Result<_, Fault> {
        Ok(User { id: parse("users.id", &id)?, name, disabled, created_at: Timestamp(created_at) })
    };
    rows.into_iter().map(read).collect()
}

impl Store {
    /// Makes a change; `audit` is committed with it. How many rows it changed; 0 when there was nothing to change.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn change_accounts(&self, change: AccountChange, audit: Option<AuditEntry>) -> Result<usize, StoreError> {
        match self.write(Write::Account(Box::new((change, audit)))).await? {
            Reply::Count(count) => Ok(count),
            _ => Err(StoreError::Corrupt("a change of accounts was mistaken".into())),
        }
    }

    /// The version of the accounts, and the newest one that a running server goes by.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn account_version(&self) -> Result<(i64, i64), StoreError> {
        self.read(|connection| {
            let both = (account_state::version, account_state::seen);
            Ok(account_state::table.select(both).first::<(i64, i64)>(connection)?)
        })
        .await
    }

    /// All accounts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn accounts(&self) -> Result<Accounts, StoreError> {
        self.read(|connection| at_one_moment(connection, load)).await
    }

    /// Notes that this server goes by that version.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn accounts_seen(&self, version: i64) -> Result<(), StoreError> {
        self.write(Write::AccountsSeen(version)).await.map(drop)
    }

    /// Notes when tokens were last used.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tokens_used(&self, uses: Vec<(TokenId, Timestamp)>) -> Result<(), StoreError> {
        self.write(Write::TokensUsed(uses)).await.map(drop)
    }

    /// A page of tokens, revoked ones included: of one user, or of all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tokens(&self, user: Option<&str>, page: &Page) -> Result<Paged<Token>, StoreError> {
        let (user, page) = (user.map(str::to_owned), page.clone());
        self.read(move |connection| {
            let mut query = tokens::table.select(TokenRow::as_select()).into_boxed();
            if let Some(user) = &user {
                query = query.filter(tokens::user_name.eq(user));
            }
            let walk = Walk::new(&page, page.after.clone(), page.before.clone());
            let rows = walk!(query, walk, tokens::id).load::<TokenRow>(connection)?;
            walk.finish(rows, |row| row.read().map(|(_, token)| token))
        })
        .await
    }

    /// A token, also a revoked one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        self.read(move |connection| {
            let query = tokens::table.filter(tokens::id.eq(id.to_string())).select(TokenRow::as_select());
            let row = query.first(connection).optional()?;
            Ok(row.map(TokenRow::read).transpose()?.map(|(_, token)| token))
        })
        .await
    }
}
