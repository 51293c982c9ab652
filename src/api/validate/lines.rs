//! In which line of a manifest a field stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Problem, options};

/// A place in a document, with its line.
struct Node {
    line: u64,
    kind: Kind,
}

enum Kind {
    Map(Vec<(Spanned<String>, Node)>),
    List(Vec<Node>),
    Value(String),
}

/// The line of a problem in the text that [`super::parse`] found it in, from 1; `None` where it is
/// about the text as a whole.
#[must_use]
pub fn line(text: &str, problem: &Problem) -> Option<u64> {
    let documents: Vec<Node> = match serde_saphyr::from_multiple_with_options(text, options()) {
        Ok(documents) => documents,
        // The place at which it stops being YAML.
        Err(error) => return error.location().map(|at| at.line()),
    };
    let (index, path) = match problem.path.strip_prefix("document ") {
        Some(rest) => {
            let (number, path) = rest.split_once(": ")?;
            (number.parse::<usize>().ok()?.checked_sub(1)?, path)
        }
        None => (0, problem.path.as_str()),
    };
    if path.is_empty() {
        return None;
    }
    documents.get(index).map(|document| document.find(path).unwrap_or(document.line))
}

impl Node {
    /// The line of a path, or of as much of it as there is.
    fn find(&self, path: &str) -> Option<u64> {
        let path = path.trim_start_matches('.');
        match &self.kind {
            Kind::Map(entries) => {
                // Keys may have dots themselves: the longest one that fits.
                let fits = |(key, _): &&(Spanned<String>, Node)| {
                    let rest = path.strip_prefix(key.value.as_str());
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                let (key, node) =
                    entries.iter().filter(fits).max_by_key(|(key, _)| key.value.len())?;
                let here = match key.referenced.line() {
                    0 => node.line,
                    here => here,
                };
                node.find_below(&path[key.value.len()..], here)
            }
            Kind::List(items) => {
                let (which, rest) = path.strip_prefix('[')?.split_once(']')?;
                let node = match which.parse::<usize>() {
                    Ok(index) => items.get(index)?,
                    Err(_) => items.iter().find(|node| node.name() == Some(which))?,
                };
                node.find_below(rest, node.line)
            }
            Kind::Value(_) => None,
        }
    }

    /// What is not there is missing where it would stand.
    fn find_below(&self, rest: &str, here: u64) -> Option<u64> {
        if rest.is_empty() { Some(here) } else { self.find(rest).or(Some(here)) }
    }

    fn name(&self) -> Option<&str> {
        let Kind::Map(entries) = &self.kind else { return None };
        let name = entries.iter().find(|(key, _)| key.value == "name");
        match name.map(|(_, node)| &node.kind) {
            Some(Kind::Value(text)) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { line: referenced.line(), kind: value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Kind::Map(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Kind::List(items))
            }

            fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
                Ok(Kind::Value(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
                Ok(Kind::Value(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
                Ok(Kind::Value(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
                Ok(Kind::Value(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
                Ok(Kind::Value(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Value(String::new()))
            }

            fn visit_none<E>(self) -> Result<Kind, E> {
                Ok(Kind::Value(String::new()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const TEXT: &str = "# a comment
apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: cache }
spec:
  nodes: 12
  redis:
    config:
      maxmemory: 1gb
      bind: 0.0.0.0
    users:
      - name: app
        rules: full +shutdown
      - { name: other, rules: '~*' }
  budget: { maxPerMonth: 12act,
            deposit: 0.1act }
---
apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: Second }
spec:
  nodes: 3
  placement:
    attributes:
      region.of-all: ''
";

    fn lines(text: &str) -> Vec<(u64, String)> {
        let problems = parse(text).expect_err("wrong in many places");
        problems.iter().map(|p| (line(text, p).unwrap_or(0), p.path.clone())).collect()
    }

    #[test]
    fn each_problem_has_the_line_of_its_field() {
        let found = lines(TEXT);
        for (at, path) in [
            (6, "document 1: spec.nodes"),
            (10, "document 1: spec.redis.config.bind"),
            (16, "document 1: spec.budget.deposit"),
            (20, "document 2: metadata.name"),
            (25, "document 2: spec.placement.attributes.region.of-all"),
        ] {
            assert!(found.contains(&(at, path.to_owned())), "{at} {path}: {found:?}");
        }
        let user = found.iter().find(|(_, path)| path.contains("users[")).expect("a user");
        assert!((12..=14).contains(&user.0), "{user:?}");
        assert!(found.iter().all(|(at, _)| *at > 0), "{found:?}");
    }

    #[test]
    fn what_is_missing_is_missing_where_it_would_stand() {
        let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: a }\nspec:\n  redis: {}\n";
        assert_eq!(lines(text), [(4, "spec.nodes".to_owned())]);
        let unknown = text.replace("redis: {}", "nodes: 3\n  replica: 3");
        assert_eq!(lines(&unknown), [(6, "spec.replica".to_owned())]);
    }

    #[test]
    fn what_is_no_yaml_has_the_line_where_it_ends() {
        let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: a\nspec: [\n";
        let found = lines(text);
        assert!(found[0].0 >= 3, "{found:?}");
        let about_all = Problem { path: String::new(), message: "it is empty".into() };
        assert_eq!(line("a: 1\n", &about_all), None);
    }
}
