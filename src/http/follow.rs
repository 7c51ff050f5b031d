//! A subscription as a stream that both transports show.

use futures_util::{Stream, stream::unfold};

use crate::{
    gateway::{Item, Lease, Subscription},
    ids::SessionKey,
    protocol::{Control, frame::EndReason},
};

/// Everything that a subscription gives, for as long as its lease lasts: it ends when the credentials are revoked, the
/// session is out of sight, or the server stops and the session has not ended the stream itself, as where it was joined
/// after the session had drained. Then it says why, so no stream is cut without a word. A revoked one ends even while
/// there is more to show.
pub fn follow((subscription, lease): (Subscription, Lease), session: SessionKey) -> impl Stream<Item = Item> + use<> {
    unfold(Some((subscription, lease)), move |open| {
        let session = session.clone();
        async move {
            let (mut subscription, lease) = open?;
            if let Some(reason) = lease.revoked() {
                return Some((end(&session, reason), None));
            }
            tokio::select! {
                biased;
                item = subscription.next() => item.map(|item| (item, Some((subscription, lease)))),
                reason = lease.ended() => Some((end(&session, reason), None)),
            }
        }
    })
}

fn end(session: &SessionKey, reason: EndReason) -> Item {
    Item::End(reason, Control::End { reason, retry: reason.retry() }.encode(session, None))
}
