//! The page for people.

use crate::gateway::TestGateway;

/// Everything that the page loads is on this server, and its policy lets it load nothing else.
#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let server = TestGateway::start();
    let page = server.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("://") && !policy.contains('*'), "{policy}");
    assert_eq!(page.header("x-frame-options"), "DENY");

    let addresses = |text: &str, attribute: &str| -> Vec<String> {
        let attribute = format!("{attribute}=\"");
        let parts = text.split(&attribute).skip(1);
        parts.map(|rest| rest.split('"').next().unwrap().to_owned()).filter(|address| address != "data:,").collect()
    };
    let scripts = addresses(&page.text, "src");
    let links = addresses(&page.text, "href");
    assert_eq!((scripts.len(), links.len()), (2, 2));
    for address in scripts.iter().chain(&links) {
        let reply = server.get(address).await;
        assert_eq!(reply.status, 200, "{address}");
        assert!(reply.text.len() > 100, "{address}");
        let kind = match address.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "application/json",
        };
        assert_eq!((reply.header("content-type"), reply.header("x-content-type-options")), (kind, "nosniff"));
    }
    // No script or style in the page itself: the policy would stop it.
    assert!(!page.text.contains("<style") && !page.text.contains("style=") && !page.text.contains("<script>"));

    for unknown in ["/docs/index.html", "/docs/..%2Fopenapi.json", "/docs/%00", "/docs/swagger-ui-bundle.js.map"] {
        server.get(unknown).await.refused(404, "route_not_found");
    }
    server.send(server.request("POST", "/docs")).await.refused(405, "method_not_allowed");
    server.assert_quiet();
}
