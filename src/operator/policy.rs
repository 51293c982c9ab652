//! What `operator --check` says of the tailnet's policy.

use crate::mesh::MeshError;
use crate::mesh::policy::{Policy, Tags, evaluate};

/// One line for each thing that was found, or one that says that all is well. A policy that may not
/// be read is no fault: the operator works without reading it.
pub(super) fn lines(read: Result<Policy, MeshError>, tags: &Tags) -> Vec<Result<String, String>> {
    let policy = match read {
        Ok(policy) => policy,
        Err(MeshError::Forbidden { status: 403, remedy, .. }) => {
            return vec![Ok(format!("not looked at: {remedy}"))];
        }
        Err(MeshError::Refused { status: 404, .. }) => {
            return vec![Ok("not looked at: the control server does not show it".to_owned())];
        }
        Err(error) => return vec![Err(error.to_string())],
    };
    let found = evaluate(&policy, tags);
    if found.is_empty() {
        let nodes: Vec<&str> = tags.nodes.iter().map(String::as_str).collect();
        return vec![Ok(format!(
            "nothing is too open and nothing is missing for nodes with {}",
            nodes.join(", ")
        ))];
    }
    found
        .into_iter()
        .map(|found| if found.is_wrong() { Err(found.to_string()) } else { Ok(found.to_string()) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MeshTags;
    use crate::mesh::policy::wanted;

    fn tags() -> Tags {
        let [nodes, operator, quarantine] = ["tag:a", "tag:op", "tag:q"].map(str::to_owned);
        Tags::new(MeshTags { nodes, operator, quarantine }, [])
    }

    fn refused(status: u16) -> MeshError {
        let (what, message) = ("the policy".to_owned(), "no".to_owned());
        if status == 404 {
            return MeshError::Refused { what, status, message };
        }
        MeshError::Forbidden { what, status, message, remedy: "grant policy_file:read".to_owned() }
    }

    #[test]
    fn a_good_policy_is_one_good_line_and_each_fault_a_bad_one() {
        let good = wanted(&tags());
        assert!(
            matches!(&lines(Ok(good.clone()), &tags())[..], [Ok(line)] if line.contains("nodes with tag:a"))
        );
        let open = Policy { grants: None, ..good };
        let found = lines(Ok(open), &tags());
        assert!(found.len() > 1 && found.iter().all(Result::is_err), "{found:?}");
    }

    #[test]
    fn a_policy_that_may_not_be_read_is_no_fault() {
        for status in [403, 404] {
            assert!(
                matches!(&lines(Err(refused(status)), &tags())[..], [Ok(line)] if line.starts_with("not looked at")),
                "{status}"
            );
        }
        assert!(matches!(&lines(Err(refused(401)), &tags())[..], [Err(_)]));
    }
}
