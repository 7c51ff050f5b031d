//! A subscription as a stream that both transports show.

use futures_util::{Stream, StreamExt as _, stream::unfold};
use tokio_util::sync::CancellationToken;

use crate::{
    gateway::{FeedSubscription, Item, Subscription},
    ids::SessionKey,
    protocol::{Control, frame::EndReason},
};

/// Everything that a subscription gives. When the server stops and the session has not ended the stream itself, as
/// where it was joined after the session had drained, it is ended here once nothing more is ready: no stream is cut
/// without a word.
pub fn follow(
    subscription: Subscription,
    session: SessionKey,
    stopping: &CancellationToken,
) -> impl Stream<Item = Item> + use<> {
    let next = |mut subscription: Subscription| async move {
        let item = subscription.next().await;
        item.map(|item| (item, subscription))
    };
    until_stopped(unfold(subscription, next), Some(session), stopping)
}

/// The same for a stream over all sessions.
pub fn follow_all(subscription: FeedSubscription, stopping: &CancellationToken) -> impl Stream<Item = Item> + use<> {
    let next = |mut subscription: FeedSubscription| async move {
        let item = subscription.next().await;
        item.map(|item| (item, subscription))
    };
    until_stopped(unfold(subscription, next), None, stopping)
}

fn until_stopped<S: Stream<Item = Item>>(
    items: S,
    session: Option<SessionKey>,
    stopping: &CancellationToken,
) -> impl Stream<Item = Item> + use<S> {
    // A token of its own: streams of many threads do not meet at one lock for every piece.
    let stopping = stopping.child_token();
    unfold(Some(Box::pin(items)), move |items| {
        let (stopping, session) = (stopping.clone(), session.clone());
        async move {
            let mut items = items?;
            tokio::select! {
                biased;
                item = items.next() => item.map(|item| (item, Some(items))),
                () = stopping.cancelled() => {
                    let reason = EndReason::ShuttingDown;
                    let end = Control::End { reason, retry: reason.retry() };
                    let end = session.map_or_else(|| end.encode_for_all(), |session| end.encode(&session, None));
                    Some((Item::End(reason, end), None))
                }
            }
        }
    })
}
