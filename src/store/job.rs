//! What the writer of the store can be asked to do, what it answers, and how one job is done.

use tokio::sync::oneshot;

use super::{
    AccountChange, Append, AttemptRecord, Audience, Claimed, DeliveryWrite, EndpointChange, IdempotencyRecord, Spend,
    StoreError, accounts,
    append::{self, Applied},
    audit,
    connection::AnyConnection,
    deliveries, endpoints,
    fault::Fault,
    ledger, prune,
    retention::{self, PruneStep, Pruned},
};
use crate::{
    agents::ProcessRecord,
    ids::{DeliveryId, SessionKey, TokenId},
    protocol::account::AuditEntry,
    timestamp::Timestamp,
};

/// What the writer does.
#[derive(Debug)]
pub(super) enum Write {
    Claim(SessionKey),
    ClaimForRemoval(SessionKey),
    Append(Box<Append>),
    RememberCall(IdempotencyRecord),
    SweepIdempotency(Timestamp),
    /// Removes some of the audit's entries from before this moment.
    SweepAudit(Timestamp),
    ProcessStarted(ProcessRecord),
    ProcessEnded(i32),
    Account(Box<(AccountChange, Option<AuditEntry>)>),
    AccountsSeen(i64),
    TokensUsed(Vec<(TokenId, Timestamp)>),
    Audit(Vec<AuditEntry>),
    /// What somebody has used outside of any session; added up with what appends have used.
    Spend(Spend),
    Endpoint(Box<EndpointChange>),
    Delivery(Box<DeliveryWrite>),
    Attempt(Box<AttemptRecord>),
    Redeliver(DeliveryId, Timestamp),
    PurgeDeliveries(Timestamp),
    SweepSpend(i64),
    Prune(Box<PruneStep>),
    GiveBack(u32),
    EmptyLog,
}

impl Write {
    /// The key whose order of writes must be kept.
    pub(super) fn key(&self) -> Option<&SessionKey> {
        match self {
            Self::Claim(key) | Self::ClaimForRemoval(key) => Some(key),
            Self::Append(append) => Some(&append.key),
            Self::Prune(step) => Some(&step.key),
            Self::RememberCall(_)
            | Self::SweepIdempotency(_)
            | Self::ProcessStarted(_)
            | Self::ProcessEnded(_)
            | Self::Account(_)
            | Self::AccountsSeen(_)
            | Self::TokensUsed(_)
            | Self::Audit(_)
            | Self::SweepAudit(_)
            | Self::Spend(_)
            | Self::Endpoint(_)
            | Self::Delivery(_)
            | Self::Attempt(_)
            | Self::Redeliver(..)
            | Self::PurgeDeliveries(_)
            | Self::SweepSpend(_)
            | Self::GiveBack(_)
            | Self::EmptyLog => None,
        }
    }

    /// True when somebody outside waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Self::Append(append) => append.urgent,
            Self::SweepIdempotency(_)
            | Self::TokensUsed(_)
            | Self::Audit(_)
            | Self::Attempt(_)
            | Self::SweepAudit(_)
            | Self::Spend(_)
            | Self::PurgeDeliveries(_)
            | Self::SweepSpend(_)
            | Self::Prune(_)
            | Self::GiveBack(_)
            | Self::EmptyLog => false,
            Self::Claim(_)
            | Self::ClaimForRemoval(_)
            | Self::RememberCall(_)
            | Self::ProcessStarted(_)
            | Self::ProcessEnded(_)
            | Self::Account(_)
            | Self::AccountsSeen(_)
            | Self::Endpoint(_)
            | Self::Delivery(_)
            | Self::Redeliver(..) => true,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Done,
    /// An append is written, in this lane; the position of its events, where it has any.
    Appended(i32, Option<i64>),
    Fenced,
    Claimed(Option<Box<Claimed>>),
    ClaimedForRemoval(Option<Box<(Claimed, Audience)>>),
    Count(usize),
    Pruned(Pruned),
}

impl Reply {
    /// The claim on a key, where it was one.
    pub(super) fn claimed(&self) -> Option<&Claimed> {
        match self {
            Self::Claimed(claimed) => claimed.as_deref(),
            Self::ClaimedForRemoval(claimed) => claimed.as_deref().map(|(claimed, _)| claimed),
            _ => None,
        }
    }

    /// What came of an append in a lane.
    pub(super) const fn of(lane: i32, applied: Applied) -> Self {
        match applied {
            Applied::Done(position) => Self::Appended(lane, position),
            Applied::Fenced => Self::Fenced,
        }
    }
}

/// A job and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Reply, StoreError>>,
    /// Who wants to know that an append is written, before it is synced.
    pub(super) written: Option<oneshot::Sender<()>>,
}

/// Does the jobs one after the other.
pub(super) fn one_by_one(connection: &mut AnyConnection, lane: i32, writes: &[Write]) -> Result<Vec<Reply>, Fault> {
    writes.iter().map(|write| one(connection, lane, write)).collect()
}

/// Does one job.
pub(super) fn one(connection: &mut AnyConnection, lane: i32, write: &Write) -> Result<Reply, Fault> {
    match write {
        Write::Claim(key) => Ok(Reply::Claimed(append::claim(connection, key)?.map(Box::new))),
        Write::ClaimForRemoval(key) => {
            Ok(Reply::ClaimedForRemoval(append::claim_for_removal(connection, key)?.map(Box::new)))
        }
        Write::Append(append) => Ok(Reply::of(lane, append::apply(connection, lane, append)?)),
        Write::RememberCall(record) => ledger::remember(connection, record, None).map(|()| Reply::Done),
        Write::SweepIdempotency(before) => ledger::sweep(connection, *before).map(Reply::Count),
        Write::ProcessStarted(process) => ledger::start(connection, process).map(|()| Reply::Done),
        Write::ProcessEnded(pgid) => ledger::end(connection, *pgid).map(|()| Reply::Done),
        Write::Account(change) => accounts::change(connection, &change.0, change.1.as_ref()).map(Reply::Count),
        Write::AccountsSeen(version) => accounts::seen(connection, *version).map(|()| Reply::Done),
        Write::TokensUsed(uses) => accounts::used(connection, uses).map(|()| Reply::Done),
        Write::Spend(_) => Ok(Reply::Done),
        Write::Audit(entries) => audit::insert(connection, entries).map(|()| Reply::Done),
        Write::SweepSpend(before) => retention::sweep_spend(connection, *before).map(Reply::Count),
        Write::Prune(step) => prune::step(connection, step).map(Reply::Pruned),
        Write::GiveBack(pages) => retention::give_back(connection, *pages).map(|()| Reply::Done),
        // After the commit: a transaction cannot.
        Write::EmptyLog => Ok(Reply::Done),
        Write::SweepAudit(before) => audit::sweep(connection, *before).map(Reply::Count),
        Write::Endpoint(change) => endpoints::change(connection, change).map(Reply::Count),
        Write::Delivery(write) => deliveries::insert(connection, std::slice::from_ref(write)).map(|()| Reply::Done),
        Write::Attempt(attempt) => deliveries::note(connection, attempt).map(|()| Reply::Done),
        Write::Redeliver(id, at) => deliveries::again(connection, *id, *at).map(Reply::Count),
        Write::PurgeDeliveries(before) => deliveries::purge(connection, *before).map(Reply::Count),
    }
}
