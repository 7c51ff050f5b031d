//! Calls about choices.

use serde_json::json;

use super::{document::Document, refusals::CHANGE};
use crate::{
    error::Code,
    http::list::Whole,
    ids::ChoiceId,
    protocol::{Acknowledged, Choice, ChoiceAnswer},
};

pub(super) fn describe(doc: &mut Document) {
    doc.topic("Choices", "A choice is a question that an agent waits on: a permission, or a question to the user.");

    doc.get("/v1/choices", "listChoices", "All questions that you may answer")
        .reads()
        .answers::<Whole<Vec<Choice>>>(200, "The questions that wait.")
        .leads_to(
            200,
            &["answerChoice"],
            &[("key", "$response.body#/data/0/session"), ("id", "$response.body#/data/0/id")],
        )
        .done();

    doc.get("/v1/sessions/{key}/choices", "listSessionChoices", "The questions of a session")
        .reads()
        .answers::<Whole<Vec<Choice>>>(200, "The questions that wait.")
        .leads_to(200, &["answerChoice"], &[("id", "$response.body#/data/0/id")])
        .refuses(&[Code::SessionNotFound])
        .done();

    doc.post("/v1/sessions/{key}/choices/{id}", "answerChoice", "Answer a question")
        .about("`allow` or `option_id` answers a permission, `answers` a question.")
        .writes()
        .id::<ChoiceId>("The question.", Code::ChoiceNotFound)
        .takes::<ChoiceAnswer>(&[
            ("allow", json!({"allow": true})),
            ("option", json!({"option_id": "always"})),
            ("answers", json!({"answers": {"answer": "this"}})),
        ])
        .answers::<Acknowledged>(202, "It is answered.")
        .refuses(CHANGE)
        .refuses(&[Code::InvalidChoicePayload, Code::ChoiceAlreadyResolved])
        .done();
}
