//! Users, tokens, organisations and the audit.

use diesel::{Connection as _, connection::SimpleConnection as _};
use greenroom::{
    ids::{TokenId, UserId},
    protocol::account::{AuditEntry, Scope, Token, User},
    secret::SecretHash,
    store::{AccountChange, AuditFilter, LoginRecord, Page},
    timestamp::Timestamp,
};
use serde_json::Map;

use super::{Database, Kind, build::key};

fn user(name: &str) -> User {
    User { id: UserId::new(), name: name.into(), disabled: false, created_at: Timestamp(5) }
}

fn token(name: &str) -> Token {
    Token {
        id: TokenId::new(),
        user: name.into(),
        made_with: None,
        label: Some("for \0 tests".into()),
        scopes: vec![Scope::Read, Scope::Webhook],
        created_at: Timestamp(7),
        expires_at: Some(Timestamp(9)),
        last_used_at: None,
        revoked_at: None,
    }
}

fn entry(actor: &str, action: &str, owner: &str) -> AuditEntry {
    AuditEntry {
        id: uuid::Uuid::now_v7().into(),
        at: Timestamp(1),
        actor: actor.into(),
        token_id: None,
        action: action.into(),
        session: Some(key("k")),
        owner: owner.into(),
        detail: Map::new(),
        ip: Some("127.0.0.1".into()),
    }
}

fn page(limit: u32) -> Page {
    Page { limit, after: None, before: None, ascending: false }
}

pub async fn tokens_come_back_and_end(db: Database) {
    let store = db.open();
    assert!(!store.accounts().await.unwrap().any_token);
    let (first, hash) = (token("alice"), SecretHash::of("gr_x"));
    let create = AccountChange::CreateToken { token: first.clone(), hash, user: user("alice") };
    assert_eq!(store.change_accounts(create, Some(entry("cli", "token.create", "alice"))).await.unwrap(), 1);
    let accounts = store.accounts().await.unwrap();
    let stored = Token { label: Some("for \u{fffd} tests".into()), ..first.clone() };
    assert_eq!((accounts.version, accounts.any_token), (1, true));
    assert_eq!(accounts.tokens, [(hash, stored.clone())]);
    assert_eq!(accounts.users.len(), 1);

    let login =
        LoginRecord { hash: SecretHash::of("c"), token: first.id, created_at: Timestamp(1), expires_at: Timestamp(2) };
    store.change_accounts(AccountChange::LogIn(login.clone()), None).await.unwrap();
    store.tokens_used(vec![(first.id, Timestamp(8))]).await.unwrap();
    let accounts = store.accounts().await.unwrap();
    assert_eq!((accounts.logins, accounts.tokens[0].1.last_used_at), (vec![login], Some(Timestamp(8))));

    store.accounts_seen(2).await.unwrap();
    assert_eq!(store.account_version().await.unwrap(), (2, 2));
    let child = Token { made_with: Some(first.id), ..token("alice") };
    let create = AccountChange::CreateToken { token: child.clone(), hash: SecretHash::of("gr_y"), user: user("alice") };
    store.change_accounts(create, None).await.unwrap();
    let revoke = || AccountChange::RevokeToken { id: first.id, at: Timestamp(10) };
    assert_eq!(store.change_accounts(revoke(), None).await.unwrap(), 2, "what was made with it ends with it");
    assert_eq!(store.change_accounts(revoke(), Some(entry("cli", "token.revoke", "alice"))).await.unwrap(), 0);
    let accounts = store.accounts().await.unwrap();
    assert!(accounts.any_token && accounts.tokens.is_empty() && accounts.logins.is_empty(), "{accounts:?}");
    assert_eq!(accounts.version, 4, "what changes nothing is no new version");
    let listed = store.tokens(Some("alice"), &page(5)).await.unwrap().data;
    assert_eq!(listed[0].revoked_at, Some(Timestamp(10)));
    assert_eq!(listed[1..], [Token { last_used_at: Some(Timestamp(8)), revoked_at: Some(Timestamp(10)), ..stored }]);
    assert!(store.tokens(Some("bob"), &page(5)).await.unwrap().data.is_empty());
    let audit = store.audit(&AuditFilter::default(), &page(5)).await.unwrap().data;
    assert_eq!(audit.len(), 1, "only what happened is in the audit: {audit:?}");
}

pub async fn organisations_have_members(db: Database) {
    let store = db.open();
    for name in ["alice", "bob"] {
        assert_eq!(store.change_accounts(AccountChange::CreateUser(user(name)), None).await.unwrap(), 1);
        assert_eq!(store.change_accounts(AccountChange::CreateUser(user(name)), None).await.unwrap(), 0);
    }
    let at = Timestamp(1);
    store.change_accounts(AccountChange::CreateOrg { name: "acme".into(), at }, None).await.unwrap();
    let join = |user: &str| AccountChange::Join { org: "acme".into(), user: user.into(), at };
    for name in ["bob", "alice", "alice"] {
        store.change_accounts(join(name), None).await.unwrap();
    }
    let members = store.accounts().await.unwrap().members;
    assert_eq!(members, [("acme".to_owned(), "alice".to_owned()), ("acme".to_owned(), "bob".to_owned())]);
    assert!(store.change_accounts(join("nobody"), None).await.is_err());
    store.change_accounts(AccountChange::Leave { org: "acme".into(), user: "bob".into() }, None).await.unwrap();
    store.change_accounts(AccountChange::DisableUser { name: "bob".into(), disabled: true }, None).await.unwrap();
    let accounts = store.accounts().await.unwrap();
    assert_eq!((accounts.members.len(), accounts.users[1].disabled), (1, true));
}

pub async fn the_audit_is_filtered(db: Database) {
    let store = db.open();
    let all = [
        entry("alice", "session.delete", "alice"),
        entry("root", "session.update", "alice"),
        entry("bob", "login", "bob"),
    ];
    store.append_audit(all.to_vec()).await.unwrap();
    let find = async |filter: AuditFilter| store.audit(&filter, &page(9)).await.unwrap().data;
    let reversed: Vec<AuditEntry> = all.iter().rev().cloned().collect();
    assert_eq!(find(AuditFilter::default()).await, reversed);
    let owner = AuditFilter { owner: Some("alice".into()), ..AuditFilter::default() };
    assert_eq!(find(owner).await, [all[1].clone(), all[0].clone()]);
    let actor = AuditFilter { actor: Some("bob".into()), session: Some(key("k")), ..AuditFilter::default() };
    assert_eq!(find(actor).await, [all[2].clone()]);
    for (action, count) in [("session", 2), ("session.delete", 1), ("sess", 0), ("%", 0), ("login", 1)] {
        let filter = AuditFilter { action: Some(action.into()), ..AuditFilter::default() };
        assert_eq!(find(filter).await.len(), count, "{action}");
    }
}

pub async fn only_what_is_old_leaves_the_audit(db: Database) {
    let store = db.open();
    // More than go in one transaction.
    let entries = (0..2500).map(|at| AuditEntry { at: Timestamp(at), ..entry("alice", "session.update", "alice") });
    store.append_audit(entries.collect()).await.unwrap();
    let count = async || {
        let mut seen = 0;
        let mut page = page(100);
        loop {
            let next = store.audit(&AuditFilter::default(), &page).await.unwrap();
            seen += next.data.len();
            page.after = next.data.last().map(|entry| entry.id.to_string());
            if !next.has_more {
                return seen;
            }
        }
    };
    // Nobody may remove what is kept, whatever the program does.
    let remove = |sql: &str| match db.kind {
        Kind::Sqlite => {
            let path = db.url.strip_prefix("sqlite:").unwrap();
            let mut other = diesel::SqliteConnection::establish(path).unwrap();
            // The writer may still keep room after its log.
            other.batch_execute("PRAGMA busy_timeout = 60000").and_then(|()| other.batch_execute(sql))
        }
        Kind::Postgres => diesel::PgConnection::establish(&db.url).unwrap().batch_execute(sql),
    };
    let refused = |sql: &str| remove(sql).unwrap_err().to_string().contains("append-only");
    assert!(refused("DELETE FROM audit WHERE at = 0"));
    assert_eq!(store.sweep_audit(Timestamp(2400)).await.unwrap(), 2400);
    assert_eq!(store.sweep_audit(Timestamp(2400)).await.unwrap(), 0);
    assert_eq!(store.sweep_audit(Timestamp(5)).await.unwrap(), 0, "an earlier moment changes nothing");
    assert_eq!(count().await, 100);
    assert!(refused("DELETE FROM audit WHERE at >= 2400") && refused("UPDATE audit SET actor = 'x'"));
    assert_eq!(count().await, 100);
}
