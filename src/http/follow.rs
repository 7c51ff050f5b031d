//! A subscription as a stream that both transports show.

use futures_util::{Stream, StreamExt as _, stream::unfold};

use crate::{
    gateway::{FeedSubscription, Item, Lease, Subscription},
    ids::SessionKey,
};

/// Everything that a subscription gives, for as long as its lease lasts: it ends when the credentials are revoked, the
/// session is out of sight, or the server stops and the session has not ended the stream itself, as where it was joined
/// after the session had drained. Then it says why, so no stream is cut without a word. A revoked one ends even while
/// there is more to show.
pub fn follow((subscription, lease): (Subscription, Lease), session: SessionKey) -> impl Stream<Item = Item> + use<> {
    let next = |mut subscription: Subscription| async move {
        let item = subscription.next().await;
        item.map(|item| (item, subscription))
    };
    while_leased(unfold(subscription, next), lease, Some(session))
}

/// The same for a stream over all sessions.
pub fn follow_all((subscription, lease): (FeedSubscription, Lease)) -> impl Stream<Item = Item> + use<> {
    let next = |mut subscription: FeedSubscription| async move {
        let item = subscription.next().await;
        item.map(|item| (item, subscription))
    };
    while_leased(unfold(subscription, next), lease, None)
}

/// Any other stream that lasts as long as a lease.
pub(super) fn while_leased<S: Stream<Item = Item>>(
    items: S,
    lease: Lease,
    session: Option<SessionKey>,
) -> impl Stream<Item = Item> + use<S> {
    unfold(Some((Box::pin(items), lease)), move |open| {
        let session = session.clone();
        async move {
            let (mut items, lease) = open?;
            if let Some(reason) = lease.revoked() {
                return Some((Item::end(reason, session.as_ref()), None));
            }
            tokio::select! {
                biased;
                item = items.next() => match (lease.revoked(), item) {
                    // Taken away while it was waited for: what came with that is not for this caller any more.
                    (Some(reason), _) => Some((Item::end(reason, session.as_ref()), None)),
                    (None, item) => item.map(|item| (item, Some((items, lease)))),
                },
                reason = lease.ended() => Some((Item::end(reason, session.as_ref()), None)),
            }
        }
    })
}
