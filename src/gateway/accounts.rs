//! Logins, and tokens of the caller's own.

use serde_json::json;

use super::{Gateway, Idempotency, Principal, sessions::unexpected, validate};
use crate::{
    access::{Deed, Via},
    error::{ApiError, Code},
    ids::{TokenId, UserId},
    protocol::account::{CreateToken, Token, User},
    secret::{self, SecretHash},
    session::command::Once,
    store::{AccountChange, IdempotencyRecord, LoginRecord, Page, Paged},
    timestamp::Timestamp,
};

/// A browser that has logged in.
#[derive(Debug)]
pub struct LoggedIn {
    /// Who it is.
    pub who: Principal,
    /// The value of its cookie; known to nobody else from now on.
    pub cookie: String,
    /// When it has to log in again.
    pub expires_at: Timestamp,
}

pub(super) fn no_randomness(error: getrandom::Error) -> ApiError {
    log::error!(error:% = error; "the system gives no random bytes");
    ApiError::new(Code::Internal, "Something failed in the server; its log has it under the request id.")
}

impl Gateway {
    /// Makes a login of a token, under a cookie that is made here: none that the browser had before counts for it.
    ///
    /// # Errors
    /// `invalid_credentials`, `rate_limited` after many of these, `store_unavailable`.
    pub async fn log_in(&self, token: &str, ip: Option<std::net::IpAddr>) -> Result<LoggedIn, ApiError> {
        let now = Timestamp::now();
        let found = self.access.book().caller(token, false, now).and_then(|who| Some((who.via.token()?, who)));
        let Some((id, who)) = found else {
            self.access.guesses.wrong(ip)?;
            // Nobody knows who it was. Past the limit there is no more to tell, so guesses cannot fill the disk.
            let nobody = Principal { user: String::new(), scopes: Vec::new(), ip, ..Principal::local() };
            let deed = Deed { action: "login.refused", session: None, owner: "", detail: json!({}) };
            self.access.audit.note(deed.by(&nobody));
            return Err(ApiError::new(Code::InvalidCredentials, "The token is wrong, expired or revoked."));
        };
        let who = Principal { ip, ..who };
        let cookie = secret::generate(secret::COOKIE_PREFIX).map_err(no_randomness)?;
        let expires_at = now.plus(self.config().callers.login_lifetime.0);
        let token_ends = self.deps.store.token(id).await?.and_then(|token| token.expires_at);
        let expires_at = token_ends.map_or(expires_at, |end| end.min(expires_at));
        let login = LoginRecord { hash: SecretHash::of(&cookie), token: id, created_at: now, expires_at };
        let deed = Deed { action: "login", session: None, owner: &who.user, detail: json!({}) };
        self.access.change(AccountChange::LogIn(login), deed.by(&who)).await?;
        Ok(LoggedIn { who, cookie, expires_at })
    }

    /// Ends the login of the caller, with its streams.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn log_out(&self, who: &Principal) -> Result<(), ApiError> {
        let Via::Cookie(_, hash) = who.via else { return Ok(()) };
        let deed = Deed { action: "logout", session: None, owner: &who.user, detail: json!({}) };
        self.access.change(AccountChange::LogOut(hash), deed.by(who)).await?;
        Ok(())
    }

    /// A page of the caller's tokens, revoked ones included.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn tokens(&self, who: &Principal, page: Page) -> Result<Paged<Token>, ApiError> {
        self.access.note_uses().await;
        Ok(self.deps.store.tokens(Some(&who.user), &page).await?)
    }

    /// Makes a token for the caller, which cannot do more or last longer than what the caller logged in with, and ends
    /// with it. The secret is in the answer and nowhere else: a call that is repeated gets the token without it.
    ///
    /// # Errors
    /// `missing_scope`, `invalid_parameter`, `store_unavailable`.
    pub async fn create_token(
        &self,
        who: &Principal,
        body: CreateToken,
        once: Option<Idempotency>,
    ) -> Result<(Option<String>, Token), ApiError> {
        validate::label(body.label.as_deref())?;
        let once = self.once(who, "tokens", "", once)?;
        let one_at_a_time = once.as_ref().map(|once| self.making(once));
        let _held = match &one_at_a_time {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        if let Some(known) = self.known_call(once.as_ref()).await? {
            let id = known.outcome.parse::<TokenId>().map_err(|_never| unexpected())?;
            return Ok((None, self.token(who, id).await?));
        }
        let mut scopes = body.scopes.unwrap_or_else(|| who.scopes.clone());
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(ApiError::new(Code::InvalidParameter, "scopes: a token needs at least one"));
        }
        if let Some(scope) = scopes.iter().find(|scope| !who.has(**scope)) {
            let message = "a token cannot do more than the one that you logged in with";
            return Err(ApiError::new(Code::MissingScope, message).with("scope", scope));
        }
        let now = Timestamp::now();
        if body.expires_at.is_some_and(|end| end <= now) {
            return Err(ApiError::new(Code::InvalidParameter, "expires_at must be in the future"));
        }
        let made_with = who.via.token();
        let parent = match made_with {
            Some(id) => self.deps.store.token(id).await?.and_then(|token| token.expires_at),
            None => None,
        };
        let expires_at = match (body.expires_at, parent) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
        let token = Token {
            id: TokenId::from(uuid::Uuid::now_v7()),
            user: who.user.clone(),
            made_with,
            label: body.label,
            scopes,
            created_at: now,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        let secret = secret::generate(secret::TOKEN_PREFIX).map_err(no_randomness)?;
        let user = User { id: UserId::new(), name: who.user.clone(), disabled: false, created_at: now };
        let detail = json!({"token": token.id, "scopes": token.scopes});
        let deed = Deed { action: "token.create", session: None, owner: &who.user, detail };
        let hash = SecretHash::of(&secret);
        let change = AccountChange::CreateToken { token: token.clone(), hash, user };
        self.access.change(change, deed.by(who)).await?;
        if let Some(Once { scope, key, request_hash }) = once {
            let outcome = token.id.to_string();
            let record = IdempotencyRecord { scope, key, request_hash, outcome, created_at: now };
            self.deps.store.remember_call(record).await?;
        }
        Ok((Some(secret), token))
    }

    /// A token of the caller's.
    ///
    /// # Errors
    /// `token_not_found`, `store_unavailable`.
    pub async fn token(&self, who: &Principal, id: TokenId) -> Result<Token, ApiError> {
        let missing = || ApiError::new(Code::TokenNotFound, "you have no token of that id");
        self.deps.store.token(id).await?.filter(|token| token.user == who.user).ok_or_else(missing)
    }

    /// Ends a token of the caller's, with its logins, the tokens that were made with them, and their streams.
    ///
    /// # Errors
    /// `token_not_found`, `store_unavailable`.
    pub async fn revoke_token(&self, who: &Principal, id: TokenId) -> Result<(), ApiError> {
        self.token(who, id).await?;
        let deed = Deed { action: "token.revoke", session: None, owner: &who.user, detail: json!({"token": id}) };
        self.access.change(AccountChange::RevokeToken { id, at: Timestamp::now() }, deed.by(who)).await?;
        Ok(())
    }
}
