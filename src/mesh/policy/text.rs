//! The policy as people paste it: JSON with comments.

use std::fmt;

use serde_json::json;

use super::{NodeAttr, Policy};

impl fmt::Display for Policy {
    /// The sections that [`super::wanted`] fills, one entry a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{{\n  // Who may give a tag to a device. The OAuth client has the tag that the others belong to.\n  \"tagOwners\": {{"
        )?;
        for (tag, owners) in &self.tag_owners {
            writeln!(f, "    {}: {},", json!(tag), list(owners))?;
        }
        writeln!(f, "  }},\n  \"grants\": [")?;
        for grant in self.grants.iter().flatten() {
            if !grant.why.is_empty() {
                writeln!(f, "    // {}", grant.why)?;
            }
            writeln!(
                f,
                "    {{\"src\": {}, \"dst\": {}, \"ip\": {}}},",
                list(&grant.src),
                list(&grant.dst),
                list(&grant.ip)
            )?;
        }
        if !self.tests.is_empty() {
            writeln!(
                f,
                "  ],\n  // A change that breaks one of these is refused.\n  \"tests\": ["
            )?;
        }
        for test in &self.tests {
            write!(f, "    {{\"src\": {}, ", json!(test.src))?;
            if !test.accept.is_empty() {
                write!(f, "\"accept\": {}, ", list(&test.accept))?;
            }
            writeln!(f, "\"deny\": {}}},", list(&test.deny))?;
        }
        writeln!(
            f,
            "  ],\n  // Devices that restart while the control server is away find the others again.\n  \"nodeAttrs\": ["
        )?;
        for NodeAttr { target, attr } in &self.node_attrs {
            writeln!(f, "    {{\"target\": {}, \"attr\": {}}},", list(target), list(attr))?;
        }
        writeln!(f, "  ],\n}}")
    }
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| json!(word).to_string()).collect();
    format!("[{}]", words.join(", "))
}
