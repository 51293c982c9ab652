//! The wanted policy is good, each part of it is needed, and what is wrong with others is said.

use serde_json::{Value, json};

use super::rules::Rules;
use super::*;

fn tags(nodes: &[&str]) -> Tags {
    let nodes = nodes.iter().map(|tag| (*tag).to_owned()).collect();
    Tags { nodes, operator: "tag:op".to_owned(), quarantine: "tag:q".to_owned() }
}

/// What is found in a policy that has the owners of the wanted one and these sections besides.
fn found(sections: &Value) -> Vec<String> {
    let mut policy = json!({"tagOwners": {"tag:a": ["tag:op"], "tag:q": ["tag:op"], "tag:op": []},
        "nodeAttrs": [{"target": ["*"], "attr": ["cache-network-maps"]}]});
    policy.as_object_mut().unwrap().extend(sections.as_object().unwrap().clone());
    evaluate(&Policy::parse(&policy.to_string()).unwrap(), &tags(&["tag:a"]))
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// As [`found`], with these grants besides the wanted ones.
fn found_with(grants: Value) -> Vec<String> {
    let mut all = vec![
        json!({"src": ["tag:a"], "dst": ["tag:a"], "ip": ["tcp:6379"]}),
        json!({"src": ["tag:op"], "dst": ["tag:a", "tag:q"], "ip": ["tcp:9700"]}),
    ];
    let Value::Array(grants) = grants else { panic!("a list of grants") };
    all.extend(grants);
    found(&json!({"grants": all, "groups": {"group:ops": ["a@example.com", "b@example.com"]},
        "hosts": {"everything": "0.0.0.0/0", "db": "10.0.0.5", "one": "100.64.0.7"}}))
}

#[track_caller]
fn only(found: &[String], words: &[&[&str]]) {
    assert_eq!(found.len(), words.len(), "{found:#?}");
    for (found, words) in found.iter().zip(words) {
        for word in *words {
            assert!(found.contains(word), "{word:?} is not in: {found}");
        }
    }
}

/// The tests of a policy that do not hold in it.
fn broken(policy: &Policy) -> Vec<String> {
    let rules = Rules::of(policy);
    let holds = |src: &str, target: &str| {
        let (dst, port) = target.rsplit_once(':').unwrap();
        rules.reaches(src, dst, port.parse().unwrap())
    };
    let mut broken = Vec::new();
    for test in &policy.tests {
        broken.extend(
            test.accept
                .iter()
                .filter(|to| !holds(&test.src, to))
                .map(|to| format!("{} must reach {to}", test.src)),
        );
        broken.extend(
            test.deny
                .iter()
                .filter(|to| holds(&test.src, to))
                .map(|to| format!("{} must not reach {to}", test.src)),
        );
    }
    broken
}

#[test]
fn nothing_is_wrong_with_the_wanted_policy_and_its_own_tests_hold() {
    for nodes in [&["tag:a"][..], &["tag:a", "tag:b", "tag:c"]] {
        let policy = wanted(&tags(nodes));
        assert_eq!(evaluate(&policy, &tags(nodes)), []);
        assert_eq!(broken(&policy), Vec::<String>::new());
    }
}

#[test]
fn the_printed_policy_is_read_back_as_it_was() {
    let policy = wanted(&tags(&["tag:a", "tag:b"]));
    let mut read = Policy::parse(&policy.to_string()).unwrap();
    let why = policy.grants.iter().flatten().map(|grant| grant.why);
    read.grants.iter_mut().flatten().zip(why).for_each(|(grant, why)| grant.why = why);
    assert_eq!(read, policy);
    insta::assert_snapshot!(policy.to_string());
}

#[test]
fn no_grant_and_no_owner_of_the_wanted_policy_may_be_missing() {
    let tags = tags(&["tag:a", "tag:b"]);
    let good = wanted(&tags);
    for at in 0..good.grants.iter().flatten().count() {
        let mut policy = good.clone();
        policy.grants.as_mut().unwrap().remove(at);
        assert!(
            evaluate(&policy, &tags).iter().any(|finding| finding.kind == Kind::Missing),
            "without grant {at}"
        );
        assert!(!broken(&policy).is_empty(), "without grant {at} a test of the policy fails");
    }
    for tag in good.tag_owners.keys() {
        let mut policy = good.clone();
        policy.tag_owners.remove(tag);
        let found = evaluate(&policy, &tags);
        assert!(
            found
                .iter()
                .any(|f| f.kind == Kind::Missing
                    && f.text.contains(&format!("{tag} is not declared"))),
            "{tag}: {found:?}"
        );
    }
}

/// It is advice: a tailnet whose control server does not know the attribute works.
#[test]
fn devices_that_keep_no_network_map_are_told_and_nothing_is_wrong_with_them() {
    let tags = tags(&["tag:a"]);
    let mut policy = wanted(&tags);
    policy.node_attrs[0].target.retain(|target| target != "tag:op");
    let found = evaluate(&policy, &tags);
    assert!(!found[0].is_wrong());
    only(&[found[0].to_string()], &[&["advice: devices with tag:op do not keep", "nodeAttrs"]]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn owners_who_are_not_the_operator_do_not_help() {
    let policy = json!({"tagOwners": {"tag:a": ["group:ops"], "tag:q": null, "tag:op": ["autogroup:admin"]},
        "nodeAttrs": [{"target": ["*"], "attr": ["cache-network-maps"]}],
        "grants": [{"src": ["tag:a"], "dst": ["tag:a"], "ip": ["6379"]}, {"src": ["tag:op"], "dst": ["tag:a", "tag:q"], "ip": ["9700"]}]});
    let found = evaluate(&Policy::parse(&policy.to_string()).unwrap(), &tags(&["tag:a"]));
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    only(
        &found,
        &[
            &["missing: tagOwners does not give tag:a to tag:op", "no key"],
            &["does not give tag:q", "quarantine"],
        ],
    );
}

#[test]
fn a_policy_that_allows_all_is_named_with_all_that_it_opens() {
    let opened: &[&[&str]] = &[
        &["too open: ", "every device reach every port"],
        &["port 1055 of nodes with tag:a", "SOCKS5"],
        &["port 9700 of nodes with tag:a", "agent"],
        &["nodes in quarantine (tag:q) and every device see each other, Redis included"],
    ];
    only(&found(&json!({"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]})), opened);
    only(&found(&json!({"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]})), opened);
    only(
        &found(&json!({"acls": [{"action": "accept", "users": ["*"], "ports": ["*:*"]}]})),
        opened,
    );
    only(&found(&json!({})), opened);
}

#[test]
fn an_empty_list_of_rules_allows_nothing() {
    for sections in [json!({"grants": []}), json!({"acls": []}), json!({"grants": null})] {
        only(
            &found(&sections),
            &[&["missing", "replica"], &["missing", "sees none"], &["missing", "quarantine"]],
        );
    }
}

#[test]
fn applications_may_reach_redis_and_nothing_else_of_a_node() {
    only(
        &found_with(
            json!([{"src": ["tag:app", "group:ops", "a@example.com"], "dst": ["tag:a"], "ip": ["tcp:6379"]}]),
        ),
        &[],
    );
    let wide = found_with(json!([{"src": ["tag:app"], "dst": ["tag:a"], "ip": ["tcp:1000-7000"]}]));
    only(&wide, &[&["grant 3 lets devices with tag:app reach port 1055 of nodes with tag:a"]]);
    let wide = found_with(json!([{"src": ["group:ops"], "dst": ["tag:a"], "ip": ["tcp:9700"]}]));
    only(&wide, &[&["devices of group:ops reach port 9700"]]);
    let wide = found_with(json!([{"src": ["tag:op"], "dst": ["tag:a"], "ip": ["*"]}]));
    only(&wide, &[&["devices with tag:op reach port 1055"]]);
    only(
        &found_with(json!([{"src": ["tag:app"], "dst": ["tag:a"], "ip": ["udp:*", "icmp:*"]}])),
        &[],
    );
}

#[test]
fn whoever_sees_the_quarantine_is_named_by_whatever_port() {
    for (grant, words) in [
        (
            json!({"src": ["tag:a"], "dst": ["tag:q"], "ip": ["tcp:26379"]}),
            "(tag:q) and devices with tag:a see each other: ",
        ),
        (
            json!({"src": ["tag:q"], "dst": ["tag:a"], "ip": ["icmp:*"]}),
            "(tag:q) and devices with tag:a see each other: ",
        ),
        (
            json!({"src": ["tag:app"], "dst": ["tag:q"], "app": {"example.com/cap/x": [{}]}}),
            "devices with tag:app see each other: ",
        ),
        (
            json!({"src": ["tag:op"], "dst": ["tag:q"], "ip": ["tcp:6379"]}),
            "devices with tag:op see each other, Redis included",
        ),
        (
            json!({"src": ["autogroup:tagged"], "dst": ["autogroup:member"], "ip": ["22"]}),
            "devices of autogroup:member see each other: ",
        ),
        (
            json!({"src": ["everything"], "dst": ["tag:q"], "ip": ["22"]}),
            "every device see each other: ",
        ),
    ] {
        only(
            &found_with(json!([grant])),
            &[&["too open: grant 3 lets nodes in quarantine", words]],
        );
    }
}

#[test]
fn what_is_no_device_of_ours_is_left_alone() {
    only(
        &found_with(json!([
            {"src": ["autogroup:member"], "dst": ["autogroup:internet", "autogroup:self", "db"], "ip": ["*"]},
            {"src": ["tag:app"], "dst": ["tag:web", "10.0.0.0/8"], "ip": ["*"]},
        ])),
        &[],
    );
}

#[test]
fn clusters_with_tags_of_their_own_stay_apart() {
    let tags = tags(&["tag:a", "tag:b"]);
    let mut policy = wanted(&tags);
    let both = || vec!["tag:a".to_owned(), "tag:b".to_owned()];
    policy.grants.as_mut().unwrap().push(Grant {
        src: both(),
        dst: both(),
        ip: vec!["tcp:6379".to_owned()],
        why: "",
    });
    let found: Vec<_> = evaluate(&policy, &tags).iter().map(ToString::to_string).collect();
    only(
        &found,
        &[
            &["nodes with tag:a reach Redis of nodes with tag:b"],
            &["nodes with tag:b reach Redis of nodes with tag:a"],
        ],
    );
    assert!(!broken(&policy).is_empty());
}

#[test]
fn a_word_that_is_not_understood_is_said_and_not_passed_over() {
    let words = found_with(json!([
        {"src": ["ipset:all"], "dst": ["svc:web"], "ip": ["tcp:redis"]},
        {"src": ["one"], "dst": ["tag:a"], "ip": ["tcp:9700"]},
    ]));
    only(
        &words,
        &[
            &["not understood: grant 3 has `ipset:all`", "look yourself"],
            &["grant 4 has `one`"],
            &["grant 3 has `svc:web`"],
            &["grant 3 has `tcp:redis`"],
        ],
    );
    let words = found(&json!({"acls": [
        {"action": "accept", "proto": "tcp", "src": ["tag:a"], "dst": ["tag:a:6379"]},
        {"action": "accept", "src": ["tag:op"], "dst": ["tag:a:9700", "tag:q:9700"]},
        {"action": "deny", "src": ["tag:x"], "dst": ["tag:y"]},
    ]}));
    only(&words, &[&["ACL 3 has `deny`"], &["ACL 3 has `tag:y`"]]);
}

#[test]
fn what_is_no_policy_is_an_error_that_quotes_nothing_of_it() {
    for text in [
        "",
        "[]",
        "{\"grants\": {}}",
        "{\"tagOwners\": {\"tag:a\": \"tag:op\"}}",
        "{\"grants\": [{\"src\": \"tag:a\"}]}",
    ] {
        let error = Policy::parse(text).unwrap_err().to_string();
        assert!(
            error.starts_with("the policy is not understood (line ") && !error.contains("tag:"),
            "{error}"
        );
    }
}
