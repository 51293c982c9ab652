//! What an apiserver can judge by itself, in the words of [`validate`](crate::api::validate).
//!
//! It cannot judge what needs a table of Redis or of the chain (`redis.config`, `rules` of users,
//! versions of an image, addresses), what compares entries of lists that have no bound (names that
//! are given twice, `allow` against `deny`), days against other units (`budget.runway`), and sums
//! over memory and disk. The operator says all of that in a condition.

use serde_json::{Value, json};

/// One rule. An expression that makes text of a number costs more than an apiserver allows for a
/// definition: sentences name no numbers but those that were written as text. Of which field (a path of names, empty for the object), what holds, and the sentence,
/// as an expression.
struct Rule {
    of: &'static str,
    holds: &'static str,
    otherwise: &'static str,
}

const fn rule(of: &'static str, holds: &'static str, otherwise: &'static str) -> Rule {
    Rule { of, holds, otherwise }
}

const RULES: &[Rule] = &[
    rule(
        "",
        "size(self.metadata.name) <= 20 && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",
        "'`' + self.metadata.name + '` cannot be a name on the mesh; write 1 to 20 of a-z, 0-9 and -, beginning with a letter and not ending with -'",
    ),
    // A lease keeps what it was made with. What never ran is bought anew.
    rule(
        "",
        "!has(oldSelf.status) || !has(oldSelf.status.nodes) || oldSelf.status.nodes.all(node, !has(node.meshName)) || (self.spec.resources.memory == oldSelf.spec.resources.memory && has(self.spec.resources.ephemeral) == has(oldSelf.spec.resources.ephemeral) && (!has(self.spec.resources.ephemeral) || self.spec.resources.ephemeral == oldSelf.spec.resources.ephemeral) && has(self.spec.resources.data) == has(oldSelf.spec.resources.data) && (!has(self.spec.resources.data) || self.spec.resources.data.size == oldSelf.spec.resources.data.size || !isQuantity(string(self.spec.resources.data.size)) || !isQuantity(string(oldSelf.spec.resources.data.size)) || quantity(string(self.spec.resources.data.size)).compareTo(quantity(string(oldSelf.spec.resources.data.size))) >= 0))",
        "'there are nodes that run, and a lease keeps the resources it was made with; keep spec.resources (nodes take other cpu, data.class and a larger data.size by moving), or apply a second cluster under another name with them'",
    ),
    rule(
        "",
        "!has(oldSelf.status) || !has(oldSelf.status.nodes) || oldSelf.status.nodes.all(node, !has(node.meshName)) || (has(self.spec.mesh.tag) == has(oldSelf.spec.mesh.tag) && (!has(self.spec.mesh.tag) || self.spec.mesh.tag == oldSelf.spec.mesh.tag))",
        "'there are nodes that run, and a lease keeps the mesh tag it was made with; keep spec.mesh.tag, or apply a second cluster under another name with it'",
    ),
    rule(
        "",
        "!has(oldSelf.status) || !has(oldSelf.status.nodes) || oldSelf.status.nodes.all(node, !has(node.meshName)) || (self.spec.placement.attributes == oldSelf.spec.placement.attributes && self.spec.placement.signedBy == oldSelf.spec.placement.signedBy && self.spec.placement.providers == oldSelf.spec.placement.providers && self.spec.placement.spread == oldSelf.spec.placement.spread && has(self.spec.placement.maxPrice) == has(oldSelf.spec.placement.maxPrice) && (!has(self.spec.placement.maxPrice) || self.spec.placement.maxPrice == oldSelf.spec.placement.maxPrice))",
        "'there are nodes that run, and a lease keeps the placement it was made with; keep spec.placement (rebalance may change), or apply a second cluster under another name with it'",
    ),
    rule("spec.nodes", "self >= 1 && self <= 9", "'so many nodes cannot be run; write 1 to 9'"),
    rule(
        "spec.image.name",
        "self.matches('^[^@]+@sha256:[0-9a-f]{64}$')",
        "'`' + self + '` has no digest; write it like registry.example.org/node@sha256: and 64 hex digits'",
    ),
    rule(
        "spec.resources.cpu",
        "!isQuantity(string(self)) || (quantity(string(self)).compareTo(quantity('10m')) >= 0 && quantity(string(self)).compareTo(quantity('384')) <= 0)",
        "string(self) + ' is not sold; Akash sells 10m to 384'",
    ),
    rule(
        "spec.resources.memory",
        "!isQuantity(string(self)) || (quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('2Ti')) <= 0)",
        "string(self) + ' is not sold; Akash sells 1Mi to 2Ti'",
    ),
    rule(
        "spec.resources.ephemeral",
        "!isQuantity(string(self)) || (quantity(string(self)).compareTo(quantity('5Mi')) >= 0 && quantity(string(self)).compareTo(quantity('32Ti')) <= 0)",
        "string(self) + ' is not sold; Akash sells 5Mi to 32Ti'",
    ),
    rule(
        "spec.resources.data.size",
        "!isQuantity(string(self)) || (quantity(string(self)).compareTo(quantity('5Mi')) >= 0 && quantity(string(self)).compareTo(quantity('32Ti')) <= 0)",
        "string(self) + ' is not sold; Akash sells 5Mi to 32Ti'",
    ),
    rule(
        "spec",
        "size(self.placement.providers.allow) == 0 || size(self.placement.providers.allow) >= self.nodes",
        "'placement.providers.allow names fewer providers than there are nodes, and two nodes never share one'",
    ),
    rule(
        "spec.placement.maxPrice",
        "!self.matches('^[0.]*act$')",
        "'buys nothing; write more than 0act'",
    ),
    rule(
        "spec.placement.rebalance.whenCheaperBy",
        "!self.matches('^[0-9]{1,9}%$') || (int(self.replace('%', '')) >= 5 && int(self.replace('%', '')) <= 90)",
        "self + ' would move nodes for nothing, or never; write 5% to 90%'",
    ),
    rule(
        "spec.placement.rebalance.atMostEvery",
        "!self.matches('^[0-9]{1,6}([.][0-9]+)?(ms|s|m|h)$') || duration(self) >= duration('1h')",
        "self + ' is shorter than a move may take; write 1h or more'",
    ),
    rule(
        "spec.budget.maxPerMonth",
        "!self.matches('^[0.]*act$')",
        "'buys nothing; write more than 0act'",
    ),
    rule(
        "spec.budget.deposit",
        "!self.matches('^[0-9]+([.][0-9]{1,6})?act$') || double(self.replace('act', '')) >= 0.5",
        "self + ' is less than the chain takes; write at least 0.5act'",
    ),
    rule(
        "spec.mesh.tag",
        "self.matches('^tag:[a-z][a-z0-9-]{0,49}$')",
        "'`' + self + '` is not a tag of the mesh; write it like tag:redis, in a-z, 0-9 and -'",
    ),
    rule(
        "spec.failover.downAfter",
        "!self.matches('^[0-9]{1,6}([.][0-9]+)?(ms|s|m|h)$') ? !self.endsWith('d') : duration(self) >= duration('5s') && duration(self) <= duration('10m')",
        "self + ' is too short to tell death from delay, or too long to help; write 5s to 10m'",
    ),
    rule(
        "spec.failover.downAfter",
        "!self.matches('^[0-9]{1,6}([.][0-9]+)?(ms|s|m|h)$') || duration(self).getMilliseconds() % 1000 == 0",
        "self + ' is not a whole number of seconds'",
    ),
    rule(
        "spec.failover.stuckAfter",
        "!self.matches('^[0-9]{1,6}([.][0-9]+)?(ms|s|m|h)$') ? !self.endsWith('d') : duration(self) >= duration('5s') && duration(self) <= duration('10m')",
        "self + ' leaves a long command no time, or applications none; write 5s to 10m'",
    ),
    rule(
        "spec.failover.maxLag",
        "!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('64Ki')) >= 0",
        "string(self) + ' is less than what is under way at any moment; write at least 64Ki'",
    ),
    rule(
        "spec",
        "!has(self.deletionPolicy) || self.deletionPolicy != 'Backup' || has(self.backup)",
        "'deletionPolicy: `Backup` takes a last backup before the end; write backup too'",
    ),
    rule(
        "spec",
        "self.durability == 'confirmed' || !has(self.confirmations)",
        "'confirmations counts under `durability: confirmed` only; set that too, or leave it out'",
    ),
    rule(
        "spec",
        "self.durability == 'confirmed' || !self.allowWriteStops",
        "'allowWriteStops counts under `durability: confirmed` only; set that too, or leave it out'",
    ),
    rule(
        "spec",
        "self.durability != 'confirmed' || self.failover.whenMinority != 'promote'",
        "'failover.whenMinority: `promote` may lose what was confirmed, and `durability: confirmed` promises that nothing of that is lost; write block'",
    ),
    rule(
        "spec",
        "self.durability != 'confirmed' || self.nodes >= 2",
        "'durability: `confirmed` needs replicas, and there is one node only; write at least 3 nodes, or async'",
    ),
    rule(
        "spec.confirmations",
        "self >= 1",
        "'0 replicas confirm nothing; write at least 1, or `durability: async`'",
    ),
    rule(
        "spec",
        "self.durability != 'confirmed' || self.nodes < 2 || !has(self.confirmations) || self.confirmations < self.nodes",
        "'more replicas shall confirm than there are; write confirmations: nodes - 2 at most'",
    ),
    rule(
        "spec",
        "self.durability != 'confirmed' || self.nodes < 2 || self.allowWriteStops || (has(self.confirmations) ? self.confirmations + 1 != self.nodes : self.nodes != 2)",
        "'all replicas must confirm, so that writes stop whenever one is away; take one node more, or say `allowWriteStops: true`'",
    ),
];

/// Lists that a rule walks through: the most entries that the operator ever writes, with room.
const BOUNDS: &[(&str, u64)] = &[("status.nodes", 64)];

/// Puts the rules and bounds where they belong.
pub(super) fn add(schema: &mut Value) {
    for (path, most) in BOUNDS {
        field(schema, path)["maxItems"] = json!(most);
    }
    for Rule { of, holds, otherwise } in RULES {
        let said = json!({"rule": holds, "messageExpression": otherwise});
        let at = field(schema, of);
        match at["x-kubernetes-validations"].as_array_mut() {
            Some(rules) => rules.push(said),
            None => at["x-kubernetes-validations"] = json!([said]),
        }
    }
}

fn field<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    let names = path.split('.').filter(|name| !name.is_empty());
    names.fold(schema, |schema, name| {
        let field = &mut schema["properties"][name];
        assert!(field.is_object(), "{path} is no field");
        field
    })
}
