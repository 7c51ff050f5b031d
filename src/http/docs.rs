//! `GET /docs`: the description as a page that a person reads and tries. Everything it loads comes from this server,
//! out of an archive that is compiled in, and its policy lets it load nothing else.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _},
    sync::OnceLock,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS},
};
use bytes::Bytes;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

use super::errors::internal;
use crate::error::{ApiError, Code};

/// The files of the page.
pub(super) const FILES: [&str; 3] = ["swagger-ui-bundle.js", "swagger-ui.css", "start.js"];

/// Nothing but scripts, styles and calls of this server; no script or style in the page itself, no frames, no forms.
/// Small pictures of the style sheet are `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Greenroom: the API</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/docs/swagger-ui.css">
  </head>
  <body>
    <noscript>This page needs JavaScript. The description itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
    <div id="reference"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
"#;

/// Begins the page. The validator that the viewer would ask is on another host.
const START: &str = r##"SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  filter: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"##;

/// `GET /docs`
pub(super) async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .body(PAGE)
}

/// `GET /docs/{file}`
pub(super) async fn file(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let name = request.match_info().get("file").unwrap_or_default();
    if !FILES.contains(&name) {
        return Err(ApiError::new(Code::RouteNotFound, "The reference has no such file."));
    }
    let body = if name == "start.js" { Bytes::from_static(START.as_bytes()) } else { unpacked(name)? };
    let kind = if name.ends_with(".css") { "text/css; charset=utf-8" } else { "text/javascript; charset=utf-8" };
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, kind))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((CACHE_CONTROL, "public, max-age=3600"))
        .body(body))
}

/// A file of the archive. It is unpacked at the first use.
fn unpacked(name: &str) -> Result<Bytes, ApiError> {
    static UNPACKED: OnceLock<BTreeMap<String, Bytes>> = OnceLock::new();
    let files = UNPACKED.get_or_init(|| {
        unpack().unwrap_or_else(|error| {
            log::error!(error:% = error; "the files of the reference page cannot be unpacked");
            BTreeMap::new()
        })
    });
    files.get(name).cloned().ok_or_else(internal)
}

fn unpack() -> Result<BTreeMap<String, Bytes>, zip::result::ZipError> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    let mut files = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let path = entry.name()?.into_owned();
        let name = path.rsplit_once("/dist/").map(|(_, name)| name).filter(|name| FILES.contains(name));
        let Some(name) = name else { continue };
        let mut content = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or(0));
        entry.read_to_end(&mut content)?;
        files.insert(name.to_owned(), content.into());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_what_the_page_needs() {
        for name in FILES.iter().filter(|name| **name != "start.js") {
            assert!(unpacked(name).unwrap().len() > 100_000, "{name}");
        }
        let bundle = unpacked("swagger-ui-bundle.js").unwrap();
        assert!(bundle.windows(15).any(|piece| piece == b"SwaggerUIBundle"));
    }

    #[test]
    fn the_page_names_its_own_files_and_no_other_place() {
        for name in FILES {
            assert!(PAGE.contains(&format!("\"/docs/{name}\"")), "{name}");
        }
        assert!(!PAGE.contains("://") && !START.contains("://"));
    }
}
