//! Cases: genuine messages with something wrong in them.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner},
};
use serde_json::{Value, json};

/// Runs a check over many cases.
#[track_caller]
pub fn check<S: Strategy>(name: &'static str, cases: S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let count = std::env::var("GREENROOM_FUZZ_CASES").ok().map_or(24, |count| count.parse().unwrap());
    let kept: &'static str = format!("tests/fuzz/regressions/{name}.txt").leak();
    let config = Config {
        cases: count,
        // Every step of making a case smaller runs it again against a server.
        max_shrink_iters: 64,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..Config::default()
    };
    if let Err(failure) = TestRunner::new(config).run(&cases, check) {
        panic!("{name}: {failure}");
    }
}

/// The messages of a corpus file.
pub fn corpus(lines: &str) -> Vec<Value> {
    lines.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Messages like those of a corpus, some of them changed.
pub fn messages(corpus: Vec<Value>, most: usize) -> impl Strategy<Value = Vec<Value>> {
    let one = (select(corpus), vec(edit(), 0..4)).prop_map(|(mut message, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut message));
        message
    });
    vec(one, 1..most)
}

/// The same as lines, some of them cut off, run together or between other things.
pub fn lines(corpus: Vec<Value>, most: usize) -> impl Strategy<Value = String> {
    (messages(corpus, most), vec(mangling(), most)).prop_map(|(messages, manglings)| {
        messages.iter().zip(manglings).map(|(message, mangling)| mangling.apply(&message.to_string())).collect()
    })
}

/// One change of a JSON value.
#[derive(Debug, Clone)]
struct Edit {
    place: Index,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Replace(Value),
    Remove,
    Wrap,
    Twice,
}

fn edit() -> impl Strategy<Value = Edit> {
    let change = prop_oneof![
        4 => stranger().prop_map(Change::Replace),
        2 => Just(Change::Remove),
        1 => Just(Change::Wrap),
        1 => Just(Change::Twice),
    ];
    (any::<Index>(), change).prop_map(|(place, change)| Edit { place, change })
}

/// A value that is probably not what is expected.
fn stranger() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("x".repeat(70_000))),
        Just(json!("\u{0}\u{7f}\r\n\u{2028}\u{feff}\u{1f980}")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[[[[[[[]]]]]]]]])),
        Just(json!({"type": {"type": "type"}})),
        Just(json!(u64::MAX)),
    ]
}

impl Edit {
    fn apply(&self, message: &mut Value) {
        let count = places(message);
        let mut left = self.place.index(count);
        self.at(message, &mut left);
    }

    /// Walks to the value of that number and changes it there. True when it is done.
    fn at(&self, value: &mut Value, left: &mut usize) -> bool {
        if *left == 0 {
            match &self.change {
                Change::Replace(other) => *value = other.clone(),
                Change::Remove => *value = Value::Null,
                Change::Wrap => *value = json!([value.take()]),
                Change::Twice => *value = json!([value.clone(), value.take()]),
            }
            return true;
        }
        *left -= 1;
        match value {
            Value::Array(items) => items.iter_mut().any(|item| self.at(item, left)),
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                names.iter().any(|name| {
                    // A field that is removed is gone, and not null.
                    if *left == 0 && matches!(self.change, Change::Remove) {
                        fields.remove(name);
                        return true;
                    }
                    self.at(&mut fields[name], left)
                })
            }
            _ => false,
        }
    }
}

/// How many values there are in a value, itself included.
fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(places).sum::<usize>(),
        Value::Object(fields) => fields.values().map(places).sum(),
        _ => 0,
    }
}

/// What is done to a line.
#[derive(Debug, Clone)]
enum Mangling {
    Whole,
    Cut(Index),
    NoEnd,
    Noise(String),
    Blank,
    CarriageReturn,
}

fn mangling() -> impl Strategy<Value = Mangling> {
    prop_oneof![
        12 => Just(Mangling::Whole),
        1 => any::<Index>().prop_map(Mangling::Cut),
        1 => Just(Mangling::NoEnd),
        1 => "\\PC{1,40}".prop_map(Mangling::Noise),
        1 => Just(Mangling::Blank),
        1 => Just(Mangling::CarriageReturn),
    ]
}

impl Mangling {
    fn apply(&self, line: &str) -> String {
        match self {
            Self::Whole => format!("{line}\n"),
            Self::Cut(at) => {
                let at = at.index(line.len());
                let at = (at..line.len()).find(|at| line.is_char_boundary(*at)).unwrap_or(line.len());
                format!("{}\n", &line[..at])
            }
            Self::NoEnd => line.to_owned(),
            Self::Noise(noise) => format!("{noise}\n{line}\n"),
            Self::Blank => format!("\n\n{line}\n"),
            Self::CarriageReturn => format!("{line}\r\n"),
        }
    }
}

#[test]
fn every_value_of_a_message_can_be_changed() {
    let message = json!({"a": [1, {"b": "c"}], "d": null});
    let count = places(&message);
    assert_eq!(count, 6);
    let changed: std::collections::BTreeSet<String> = (0..count)
        .map(|place| {
            let (mut value, mut left) = (message.clone(), place);
            let edit = Edit { place: any_index(), change: Change::Replace(json!("X")) };
            assert!(edit.at(&mut value, &mut left));
            value.to_string()
        })
        .collect();
    assert_eq!(changed.len(), count, "{changed:?}");
}

#[cfg(test)]
fn any_index() -> Index {
    use proptest::strategy::ValueTree as _;
    any::<Index>().new_tree(&mut TestRunner::deterministic()).unwrap().current()
}
