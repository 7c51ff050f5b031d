//! Calls about outbound webhooks.

use serde_json::json;

use super::{document::Document, operation::Operation};
use crate::{
    error::Code,
    http::{body::Nothing, list::List},
    ids::{DeliveryId, EndpointId},
    protocol::webhook::{CreateEndpoint, Delivery, Endpoint, NewEndpoint, PatchEndpoint},
};

/// Calls about one endpoint.
const ONE: &str = "/v1/webhook-endpoints/{id}";

/// The endpoint of the path.
fn one(operation: Operation<'_>) -> Operation<'_> {
    operation.id::<EndpointId>("The endpoint.", Code::EndpointNotFound)
}

pub(super) fn describe(doc: &mut Document) {
    doc.topic(
        "Webhook endpoints",
        "Who is told of events, by a signed POST as of Standard Webhooks 1.0. An endpoint is told of what its owner may see.",
    );

    doc.get("/v1/webhook-endpoints", "listWebhookEndpoints", "Your webhook endpoints; for admins all")
        .reads()
        .page::<EndpointId>()
        .answers::<List<Endpoint>>(200, "The page.")
        .done();

    doc.post("/v1/webhook-endpoints", "createWebhookEndpoint", "Have an address told of events")
        .about(
            "The one answer that has its secret. Needs the scope `read` too, as it shows what that one shows. An address \
             that is not a public one is refused, and so is plain `http`, but where the configuration allows the address.",
        )
        .writes()
        .once()
        .takes::<CreateEndpoint>(&[(
            "finished turns",
            json!({"url": "https://hooks.example.com/greenroom", "types": ["turn.finished", "choice."], "sessions": ["web:*"]}),
        )])
        .answers_with_location::<NewEndpoint>(201, "The endpoint.")
        .leads_to(201, &["getWebhookEndpoint", "deleteWebhookEndpoint"], &[("id", "$response.body#/id")])
        .refuses(&[Code::UrlNotAllowed, Code::TooManyEndpoints])
        .done();

    one(doc.get(ONE, "getWebhookEndpoint", "A webhook endpoint, and how it does").reads())
        .answers::<Endpoint>(200, "The endpoint.")
        .done();

    one(doc.patch(ONE, "updateWebhookEndpoint", "Change a webhook endpoint").writes())
        .takes::<PatchEndpoint>(&[("types", json!({"types": ["turn."], "sessions": null}))])
        .may_be_empty()
        .answers::<Endpoint>(200, "The endpoint after it.")
        .refuses(&[Code::UrlNotAllowed, Code::EndpointConfigured])
        .done();

    one(doc.delete(ONE, "deleteWebhookEndpoint", "Delete a webhook endpoint, with its deliveries").writes())
        .answers_nothing(204, "It is gone.")
        .refuses(&[Code::EndpointConfigured])
        .done();

    one(doc.post(&format!("{ONE}/rotate"), "rotateWebhookSecret", "Give a webhook endpoint a new secret").writes())
        .about("The one answer that has it. For as long as `delivery.rotation` deliveries are signed with both.")
        .once()
        .takes_optional::<Nothing>()
        .answers::<NewEndpoint>(200, "The endpoint.")
        .refuses(&[Code::EndpointConfigured])
        .done();

    one(doc.post(&format!("{ONE}/test"), "testWebhookEndpoint", "Send something, to see whether it works").writes())
        .about("A delivery of the type `webhook.test`, in its turn.")
        .once()
        .takes_optional::<Nothing>()
        .answers_with_location::<Delivery>(202, "The delivery.")
        .refuses(&[Code::EndpointDisabled, Code::DeliveryNotFound])
        .done();

    one(doc.post(&format!("{ONE}/enable"), "enableWebhookEndpoint", "Enable a webhook endpoint again").writes())
        .about("What waited for it goes out now. An endpoint that is enabled stays so.")
        .takes_optional::<Nothing>()
        .answers::<Endpoint>(200, "The endpoint.")
        .refuses(&[Code::EndpointConfigured])
        .done();

    one(doc.get(&format!("{ONE}/deliveries"), "listDeliveries", "What was delivered, and what waits").reads())
        .page::<DeliveryId>()
        .query(
            "state",
            "Only those in this state.",
            json!({"type": "string", "enum": ["pending", "delivered", "failed"]}),
        )
        .answers::<List<Delivery>>(200, "The page.")
        .done();

    let id = doc.taken::<DeliveryId>();
    let path = format!("{ONE}/deliveries/{{delivery}}");
    one(doc.get(&path, "getDelivery", "A delivery").reads())
        .path("delivery", "The delivery.", id.clone())
        .answers::<Delivery>(200, "The delivery.")
        .refuses(&[Code::DeliveryNotFound])
        .done();

    one(doc.post(&format!("{path}/redeliver"), "redeliver", "Send a delivery again").writes())
        .about(
            "With the same `webhook-id`, before what else waits, and with all attempts. One that waits is tried now.",
        )
        .path("delivery", "The delivery.", id)
        .takes_optional::<Nothing>()
        .answers::<Delivery>(202, "The delivery.")
        .refuses(&[Code::DeliveryNotFound, Code::EndpointDisabled])
        .done();
}
