//! YAML as configuration files need it: maps, lists and texts, each with its line.
//!
//! Stricter than a general reader: names given twice and references (`*x`) are refused, since a slip in such a
//! file decides who gets in. No file is opened here.

use std::{collections::BTreeSet, fmt::Display};

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Longest text, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;
/// Deepest nesting; the forms that are read need five.
const MAX_DEPTH: usize = 16;

/// Why a text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {field}{why}")]
pub struct BadYaml {
    /// Counted from 1.
    pub line: usize,
    /// Path of the member, with `: ` behind it; empty when the text is no YAML at all.
    pub field: String,
    /// What is wrong there, for the person who wrote the file.
    pub why: String,
}

/// A node and how to get there, for messages.
pub struct NodePath<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> NodePath<'a> {
    /// The whole text.
    pub fn top(node: &'a Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    fn inside(&self, node: &'a Node, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            node,
            path: format!("{}{dot}{name}", self.path),
        }
    }

    /// Something is wrong here.
    pub fn bad(&self, why: impl Display) -> BadYaml {
        let colon = if self.path.is_empty() { "" } else { ": " };
        BadYaml {
            line: self.node.line,
            field: format!("{}{colon}", self.path),
            why: why.to_string(),
        }
    }

    /// Names and what they stand for. Nothing at all (`deviceNames:`) is no entries.
    ///
    /// # Errors
    /// It is something else, or a name is no text or given twice.
    pub fn entries(&self) -> Result<Vec<(&'a str, Self)>, BadYaml> {
        let map = match &self.node.value {
            Value::Map(map) => map,
            Value::Nothing => return Ok(Vec::new()),
            other => return Err(self.bad(format!("{} where names are expected", other.what()))),
        };
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (key, value) in map {
            let Value::Text(name) = &key.value else {
                return Err(self
                    .inside(key, "?")
                    .bad(format!("{} as a name", key.value.what())));
            };
            if !seen.insert(name) {
                return Err(self.inside(key, name).bad("given twice"));
            }
            all.push((name.as_str(), self.inside(value, name)));
        }
        Ok(all)
    }

    /// These members, in this order, and no others.
    ///
    /// # Errors
    /// Those of [`NodePath::entries`], and another member.
    pub fn members<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Self>; N], BadYaml> {
        let mut found = [const { None }; N];
        for (name, place) in self.entries()? {
            match names.iter().position(|known| *known == name) {
                Some(i) => found[i] = Some(place),
                None => return Err(place.bad(format!("unknown; known here: {}", names.join(", ")))),
            }
        }
        Ok(found)
    }

    /// A list of texts; nothing at all is an empty one.
    ///
    /// # Errors
    /// It is something else.
    pub fn texts(&self) -> Result<Vec<(&'a str, Self)>, BadYaml> {
        let list = match &self.node.value {
            Value::List(list) => list,
            Value::Nothing => return Ok(Vec::new()),
            other => return Err(self.bad(format!("{} where a list is expected", other.what()))),
        };
        list.iter()
            .map(|node| {
                let place = Self {
                    node,
                    path: self.path.clone(),
                };
                match &node.value {
                    Value::Text(text) => Ok((text.as_str(), place)),
                    other => Err(place.bad(format!("{} in a list of texts", other.what()))),
                }
            })
            .collect()
    }

    /// Where it stands, counted from 1.
    pub fn line(&self) -> usize {
        self.node.line
    }

    /// A single text; `None` for nothing at all.
    ///
    /// # Errors
    /// A list or a map.
    pub fn text(&self) -> Result<Option<&'a str>, BadYaml> {
        match &self.node.value {
            Value::Nothing => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            other => Err(self.bad(format!("{} where a text is expected", other.what()))),
        }
    }

    /// Whether this is a single text.
    pub fn is_text(&self) -> bool {
        matches!(self.node.value, Value::Text(_))
    }
}

/// One thing in the file, and where it stands.
#[derive(Debug)]
pub struct Node {
    line: usize,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Nothing,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Value {
    fn what(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A list or map that is not closed yet.
struct OpenCollection {
    line: usize,
    value: Value,
    /// The name whose value comes next.
    key: Option<Node>,
}

impl OpenCollection {
    fn push(&mut self, node: Node) {
        match &mut self.value {
            Value::Map(map) => match self.key.take() {
                Some(key) => map.push((key, node)),
                None => self.key = Some(node),
            },
            Value::List(list) => list.push(node),
            Value::Nothing | Value::Text(_) => {}
        }
    }
}

/// Reads a text; an empty one is nothing at all.
///
/// # Errors
/// It is no YAML, or one of those that are refused.
pub fn tree(text: &str) -> Result<Node, BadYaml> {
    let bad = |line: usize, why: &str| BadYaml {
        line,
        field: String::new(),
        why: why.to_owned(),
    };
    if text.len() > MAX_FILE {
        return Err(bad(1, "the file is longer than 1 MiB"));
    }
    let mut open: Vec<OpenCollection> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|why| bad(why.marker().line(), why.info()))?;
        let line = span.start.line();
        let done = match event {
            Event::MappingStart(..) | Event::SequenceStart(..) if open.len() >= MAX_DEPTH => {
                return Err(bad(line, "nested too deep"));
            }
            Event::MappingStart(..) => {
                open.push(start(line, Value::Map(Vec::new())));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push(start(line, Value::List(Vec::new())));
                continue;
            }
            Event::Alias(_) => return Err(bad(line, "a reference (*name); write it out")),
            Event::Scalar(text, style, ..) => Node {
                line,
                value: scalar(&text, style),
            },
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(OpenCollection { line, value, .. }) => Node { line, value },
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            Some(parent) => parent.push(done),
            None if root.is_some() => return Err(bad(line, "a second document")),
            None => root = Some(done),
        }
    }
    let nothing = Node {
        line: 1,
        value: Value::Nothing,
    };
    Ok(root.unwrap_or(nothing))
}

fn start(line: usize, value: Value) -> OpenCollection {
    OpenCollection {
        line,
        value,
        key: None,
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Nothing,
        _ => Value::Text(text.to_owned()),
    }
}
