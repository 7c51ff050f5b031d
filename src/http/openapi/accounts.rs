//! Calls about who calls: logins of browsers, tokens, the audit.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::document::Document;
use crate::{
    error::Code,
    http::list::List,
    ids::{AuditId, SessionKey, TokenId},
    protocol::account::{AuditEntry, CreateToken, Login, Scope, Token},
    timestamp::Timestamp,
};

/// A login of a browser. The cookie comes with it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LoggedIn {
    /// The user.
    user: String,
    /// What the login allows.
    scopes: Vec<Scope>,
    /// The organisations that the user is a member of.
    orgs: Vec<String>,
    /// When it ends.
    expires_at: Timestamp,
}

/// A token that was made, with its secret.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NewToken {
    #[serde(flatten)]
    known: Token,
    /// The secret. No other answer has it.
    token: String,
}

pub(super) fn describe(doc: &mut Document) {
    doc.topic("Accounts", "Who calls: tokens of programs, logins of browsers, and the audit of what was done.");

    doc.post("/v1/login", "logIn", "Log a browser in with a token")
        .about("Sets a cookie that no script can read, for this host alone.")
        .open()
        .takes::<Login>(&[])
        .answers::<LoggedIn>(200, "The login.")
        .sets_cookie(200)
        .refuses(&[
            Code::MissingCredentials,
            Code::InvalidCredentials,
            Code::RateLimited,
            Code::StoreUnavailable,
            Code::ShuttingDown,
            Code::Overloaded,
        ])
        .done();

    doc.post("/v1/logout", "logOut", "End the login of the browser")
        .about("Without a login there is nothing to end.")
        .open()
        .answers_nothing(204, "It is over.")
        .sets_cookie(204)
        .refuses(&[Code::RateLimited, Code::StoreUnavailable, Code::ShuttingDown, Code::Overloaded])
        .done();

    doc.get("/v1/me/tokens", "listTokens", "Your tokens, without their secrets")
        .browser()
        .page::<TokenId>()
        .answers::<List<Token>>(200, "The page.")
        .done();

    doc.post("/v1/me/tokens", "createToken", "Make a token")
        .about("The one answer that has its secret.")
        .browser()
        .takes::<CreateToken>(&[])
        .answers_with_location::<NewToken>(201, "The token.")
        .done();

    doc.get("/v1/me/tokens/{id}", "getToken", "One of your tokens")
        .browser()
        .id::<TokenId>("The token.", Code::TokenNotFound)
        .answers::<Token>(200, "The token.")
        .done();

    doc.delete("/v1/me/tokens/{id}", "revokeToken", "Revoke a token")
        .about("It ends at once, also for streams that are open.")
        .browser()
        .id::<TokenId>("The token.", Code::TokenNotFound)
        .answers_nothing(204, "It is revoked.")
        .done();

    let key = doc.taken::<SessionKey>();
    let text = || json!({"type": "string"});
    doc.get("/v1/audit", "listAudit", "Who did what to what, from where")
        .about("With `Accept: application/x-ndjson` all entries from there on, one a line. Others than admins see their own.")
        .reads()
        .page::<AuditId>()
        .query("session", "Only entries about this session.", key)
        .query("actor", "Only what this user did.", text())
        .query("action", "Only this action, such as `session.delete`.", text())
        .answers::<List<AuditEntry>>(200, "The page, or the lines.")
        .answers_as(200, "The page, or the lines.", "application/x-ndjson", json!({"schema": {"type": "string"}}))
        .refuses(&[Code::InvalidId, Code::SessionNotFound])
        .done();
}
