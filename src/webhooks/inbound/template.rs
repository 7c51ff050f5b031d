//! The templates of routes: Jinja by the crate `minijinja`, over the body of a webhook. Pure and bounded.
//!
//! A template sees the fields of the body by their names, and `payload` (the whole body), `headers` (by small names, without
//! those that hold credentials) and `route`. A value that is not there is an error where it is printed, and false where it
//! is asked for; a null prints as nothing.

use std::{collections::BTreeMap, io};

use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, value::Serde};
use serde_json::Value;

use super::{Headers, key};

/// Steps that one evaluation may take.
const FUEL: u64 = 100_000;
/// Bytes that a template may print; a message has at most 1 MiB characters.
const MAX_OUTPUT: usize = 4 * 1024 * 1024;

/// What templates are filled with.
pub(super) struct Context(minijinja::Value);

impl Context {
    pub(super) fn new(payload: &Value, headers: &Headers, route: &str) -> Self {
        let whole = minijinja::Value::from(Serde(payload));
        let mut all: BTreeMap<String, minijinja::Value> = BTreeMap::new();
        if let Value::Object(fields) = payload {
            // Shared with `whole`, not made twice.
            let field = |name: &String| Some((name.clone(), whole.get_attr(name).ok()?));
            all.extend(fields.keys().filter_map(field));
        }
        let headers: BTreeMap<&str, &str> = headers.shown().collect();
        all.insert("headers".into(), minijinja::Value::from(Serde(headers)));
        all.insert("route".into(), route.into());
        all.insert("payload".into(), whole);
        Self(minijinja::Value::from(all))
    }
}

/// The text that a template begins with, whatever it is filled with: the text, and whether there is more behind it.
pub(super) fn beginning(source: &str) -> (&str, bool) {
    let source = source.trim_start();
    match source.find('{') {
        Some(end) => (source.get(..end).unwrap_or_default(), true),
        None => (source.trim_end(), false),
    }
}

/// A template that was found to be good.
#[derive(Debug)]
pub(super) struct Template {
    source: String,
    environment: Environment<'static>,
}

impl Template {
    /// A template for a message.
    pub(super) fn for_text(source: &str) -> Result<Self, String> {
        Self::new(source, |out, value| out.write_str(&value.to_string()))
    }

    /// A template for a key: each value that it prints becomes a part of the key.
    pub(super) fn for_key(source: &str) -> Result<Self, String> {
        Self::new(source, |out, value| out.write_str(&key::part(&value.to_string())))
    }

    fn new(source: &str, print: fn(&mut Output<'_>, &minijinja::Value) -> std::fmt::Result) -> Result<Self, String> {
        let mut environment = environment(UndefinedBehavior::Chainable);
        environment.set_formatter(move |out: &mut Output<'_>, _: &mut State<'_, '_>, value: &minijinja::Value| {
            if value.is_none() || value.is_undefined() { Ok(()) } else { print(out, value).map_err(Error::from) }
        });
        let mut template = Self { source: source.to_owned(), environment };
        // A filter that does not exist shows when it is met, not when it is read: so it is met here, with a body that has
        // nothing and lets everything be asked for.
        match template.render(&Context::new(&Value::Null, &Headers::default(), "")) {
            Err(error) if is_mistake(&error) => return Err(line(&error)),
            _ => template.environment.set_undefined_behavior(UndefinedBehavior::SemiStrict),
        }
        Ok(template)
    }

    /// The text, or why this body does not fit.
    pub(super) fn fill(&self, context: &Context) -> Result<String, String> {
        self.render(context).map_err(|error| line(&error))
    }

    fn render(&self, context: &Context) -> Result<String, Error> {
        let mut printed = Bounded(Vec::new());
        let template = self.environment.template_from_named_str("template", &self.source)?;
        template.render_captured_to(context.0.clone(), &mut printed)?;
        String::from_utf8(printed.0).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
    }
}

/// An expression that was found to be good.
#[derive(Debug)]
pub(super) struct Condition {
    source: String,
    environment: Environment<'static>,
}

impl Condition {
    pub(super) fn new(source: &str) -> Result<Self, String> {
        // What is not there is false, however deep: most bodies that are not wanted lack what is asked for.
        let condition = Self { source: source.to_owned(), environment: environment(UndefinedBehavior::Chainable) };
        match condition.eval(&Context::new(&Value::Null, &Headers::default(), "")) {
            Err(error) if is_mistake(&error) => Err(line(&error)),
            _ => Ok(condition),
        }
    }

    /// Whether it is true, or why it cannot be said of this body.
    pub(super) fn holds(&self, context: &Context) -> Result<bool, String> {
        self.eval(context).map_err(|error| line(&error))
    }

    fn eval(&self, context: &Context) -> Result<bool, Error> {
        Ok(self.environment.compile_expression(&self.source)?.eval(context.0.clone())?.is_true())
    }
}

fn environment(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(undefined);
    environment.set_fuel(Some(FUEL));
    environment
}

/// True for what no body could set right.
fn is_mistake(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction
    )
}

/// An error in one line.
fn line(error: &Error) -> String {
    let text = error.to_string().replace("(in template:", "(line ").replace("(in <expression>:1)", "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text that does not grow for ever.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(piece.len()) > MAX_OUTPUT {
            return Err(io::Error::other(format!("it prints more than {MAX_OUTPUT} bytes")));
        }
        self.0.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> Context {
        let payload = json!({"issue": {"number": 7, "title": "a <b>", "body": null}, "labels": ["x", "y"],
            "repository": {"full_name": "acme/site"}, "headers": "mine", "empty": ""});
        let headers = Headers::new([("x-github-event", &b"issues"[..]), ("authorization", b"Bearer gr_x")]);
        Context::new(&payload, &headers, "ci")
    }

    fn fill(source: &str) -> Result<String, String> {
        Template::for_text(source).unwrap().fill(&context())
    }

    #[test]
    fn a_template_sees_the_body_and_where_it_came_in() {
        assert_eq!(fill("#{{ issue.number }} {{ issue.title }}{{ issue.body }}").unwrap(), "#7 a <b>");
        assert_eq!(
            fill("{{ route }} {{ headers['x-github-event'] }} {{ payload.headers }}").unwrap(),
            "ci issues mine"
        );
        assert_eq!(fill("{% for label in labels %}{{ label | upper }} {% endfor %}").unwrap(), "X Y ");
        assert_eq!(fill("{{ issue.assignee.login if issue.assignee else 'nobody' }}").unwrap(), "nobody");
        assert_eq!(fill("{{ labels | tojson }}").unwrap(), r#"["x", "y"]"#);
    }

    #[test]
    fn what_is_not_there_is_an_error_that_names_it() {
        for (source, name) in [
            ("{{ comment }}", "`comment`"),
            ("{{ comment.body }}", "`comment`"),
            ("{{ headers.authorization }}", "`headers.authorization`"),
            ("a\n{{ issue.nope }}", "line 2"),
        ] {
            let error = fill(source).unwrap_err();
            assert!(error.contains("undefined") && error.contains(name) && !error.contains('\n'), "{source}: {error}");
        }
    }

    #[test]
    fn what_is_printed_and_how_long_it_takes_is_bounded() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(fill(endless).unwrap_err().contains("fuel"));
        let context = Context::new(&json!({"a": "x".repeat(1_000_000)}), &Headers::default(), "ci");
        let error = Template::for_text("{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}").unwrap().fill(&context).unwrap_err();
        assert!(!error.is_empty(), "{error}");
    }

    #[test]
    fn a_value_in_a_key_cannot_leave_its_place() {
        let key = |source: &str| Template::for_key(source).unwrap().fill(&context()).unwrap();
        assert_eq!(key("gh:{{ repository.full_name }}:{{ issue.number }}"), "gh:acme@@2fsite:7");
        assert_eq!(key("gh:{{ 'a:b' }}{{ 'c' | safe }}:{{ empty }}"), "gh:a@@3abc:");
        assert_eq!(key("gh:{{ 'x:y' | safe }}"), "gh:x@@3ay");
        assert_eq!(key("{% set a %}{{ 'x:y' }}{% endset %}gh:{{ a }}"), "gh:x@@40@3ay");
    }

    #[test]
    fn conditions_are_false_where_they_ask_for_what_is_not_there() {
        let holds = |source: &str| Condition::new(source).unwrap().holds(&context()).unwrap();
        assert!(holds("issue.number > 5 and not sender.bot") && holds("headers['x-github-event'] in ['issues']"));
        assert!(!holds("comment.user.login == 'me'") && !holds("nope") && !holds("issue.body"));
        assert!(
            Condition::new("issue.number > 5")
                .unwrap()
                .holds(&Context::new(&json!([]), &Headers::default(), ""))
                .is_ok()
        );
    }
}
