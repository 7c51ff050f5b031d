//! `GET /v1/audit`: who did what, as pages or as lines.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use bytes::Bytes;
use futures_util::stream::try_unfold;

use super::{Api, Params, caller::Reader, list::List, messages::accepts, path};
use crate::{
    error::ApiError,
    gateway::{Gateway, Principal},
    ids::AuditId,
    protocol::account::AuditEntry,
    store::{AuditFilter, Page, Paged},
};

/// The media type of JSON lines.
const NDJSON: &str = "application/x-ndjson";
/// Entries that are read at once for an export.
const PIECE: u32 = 500;

/// `GET /v1/audit`
pub(super) async fn list(
    request: HttpRequest,
    api: Data<Api>,
    Reader(who): Reader,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    let filter = AuditFilter {
        session: params.get("session").map(path::key).transpose()?,
        owner: None,
        actor: params.text("actor"),
        action: params.text("action"),
    };
    let page = params.page::<AuditId>()?;
    if accepts(&request, NDJSON) {
        return export(api.gateway.clone(), who, filter, page, params.get("limit").is_some()).await;
    }
    let page = api.gateway.audit(&who, filter, page).await?;
    Ok(HttpResponse::Ok().json(List::of(page, |entry| entry.id.to_string())))
}

/// All entries from the page on, one a line; only the page where a limit is asked for. The first piece is read before the
/// answer begins, so that a refusal is one.
async fn export(
    gateway: Gateway,
    who: Principal,
    filter: AuditFilter,
    page: Page,
    limited: bool,
) -> Result<HttpResponse, ApiError> {
    let page = if limited { page } else { Page { limit: PIECE, ..page } };
    let first = gateway.audit(&who, filter.clone(), page.clone()).await?;
    let lines = try_unfold(Some((first, page)), move |at| {
        let (gateway, who, filter) = (gateway.clone(), who.clone(), filter.clone());
        async move {
            let Some((piece, page)) = at else { return Ok::<_, ApiError>(None) };
            let after = piece.data.last().map(|entry| entry.id.to_string());
            let next = match after.filter(|_| piece.has_more && !limited && page.before.is_none()) {
                Some(after) => {
                    // Who may not call any more gets no more of it.
                    let who = gateway.access().renew(&who)?;
                    let page = Page { after: Some(after), ..page };
                    Some((gateway.audit(&who, filter, page.clone()).await?, page))
                }
                None => None,
            };
            Ok(Some((lines(&piece), next)))
        }
    });
    Ok(HttpResponse::Ok().content_type(NDJSON).streaming(lines))
}

fn lines(piece: &Paged<AuditEntry>) -> Bytes {
    let mut out = Vec::new();
    for entry in &piece.data {
        if let Ok(line) = serde_json::to_vec(entry) {
            out.extend_from_slice(&line);
            out.push(b'\n');
        }
    }
    out.into()
}
