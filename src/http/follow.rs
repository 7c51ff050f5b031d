//! A subscription as a stream that both transports show.

use futures_util::{Stream, stream::unfold};
use tokio_util::sync::CancellationToken;

use crate::{
    gateway::{Item, Subscription},
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
    // A token of its own: streams of many threads do not meet at one lock for every piece.
    let stopping = stopping.child_token();
    unfold(Some(subscription), move |subscription| {
        let (stopping, session) = (stopping.clone(), session.clone());
        async move {
            let mut subscription = subscription?;
            tokio::select! {
                biased;
                item = subscription.next() => item.map(|item| (item, Some(subscription))),
                () = stopping.cancelled() => {
                    let reason = EndReason::ShuttingDown;
                    let end = Control::End { reason, retry: reason.retry() }.encode(&session, None);
                    Some((Item::End(reason, end), None))
                }
            }
        }
    })
}
