//! The contract as a decoder wants it: a tree of the declared properties.

use ameles_schemas::{Contract, FieldKind, Transform};

use super::bit;
use super::literal::Literal;
use super::plain::PlainField;
use super::validate::Quick;

/// A declared object: which keys it may have.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) children: Vec<Child>,
    /// How the value of each is read where it is plain.
    pub(crate) plain: Vec<PlainField>,
    /// Fields below, at whatever depth: forgotten when the object's key comes again.
    pub(crate) below: Vec<usize>,
    /// Where its part of [`Plan::order`] begins.
    pub(crate) order_at: usize,
    /// What stands before an undeclared key's name in reports: `props.`.
    pub(crate) prefix: String,
}

/// A declared key of an object.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) key: Box<str>,
    pub(crate) field: Option<usize>,
    /// Where its value is a declared object.
    pub(crate) node: Option<usize>,
    pub(crate) kind: FieldKind,
    /// Its key as most often written, and before it the comma, but not for an object's first.
    pub(crate) key_literals: [Literal; 2],
    /// The field's bit among the first ones; none beyond them.
    pub(crate) bit: u64,
    /// How its value is checked on the way.
    pub(crate) quick: Quick,
    /// The consent stamp, without identifiers.
    pub(crate) is_stamp: bool,
    /// That, or an object around it.
    pub(crate) holds_stamp: bool,
}

impl Child {
    /// The declared properties, where the field itself is declared an object.
    #[inline]
    pub(crate) fn node_of_object(&self) -> Option<usize> {
        self.node.filter(|_| self.kind == FieldKind::Object)
    }
}

/// The tree of a contract's properties, and each field's enclosing object.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<Node>,
    /// For each field, the field of the object around it.
    pub(crate) parents: Vec<Option<usize>>,
    /// Which key is expected next, as children in the contract's order: for each
    /// node first the one that comes first, then the one after each child.
    pub(crate) order: Vec<u16>,
}

/// No key, but the object's end is expected.
pub(crate) const END: u16 = u16::MAX;

impl Plan {
    pub(crate) fn new(contract: &Contract) -> Self {
        let mut plan = Self { nodes: vec![Node::default()], parents: vec![None; contract.fields().len()], order: Vec::new() };
        for (field, declared) in contract.fields().iter().enumerate() {
            let mut node = 0;
            let last = declared.path.len().saturating_sub(1);
            for (depth, key) in declared.path.iter().enumerate() {
                let child = plan.child(node, key);
                if depth == last {
                    plan.nodes[node].children[child].field = Some(field);
                    plan.nodes[node].children[child].kind = declared.kind;
                    plan.nodes[node].children[child].quick = Quick::new(field, declared);
                    plan.nodes[node].children[child].bit = bit(field);
                } else {
                    let around = plan.nodes[node].children[child].field;
                    plan.parents[field] = around.or(plan.parents[field]);
                    node = plan.object(node, child);
                    plan.nodes[node].below.push(field);
                }
            }
        }
        plan.mark_stamp(contract);
        for node in &mut plan.nodes {
            node.plain = node.children.iter().map(PlainField::new).collect();
            node.order_at = plan.order.len();
            plan.order.extend(0..node.children.len() as u16);
            plan.order.push(END);
        }
        plan
    }

    /// Marks the consent stamp, if nothing in it is hashed or cut.
    fn mark_stamp(&mut self, contract: &Contract) {
        let roles = contract.roles();
        let Some(stamp) = roles.consent else { return };
        let plain = |field: &usize| roles.consent_purposes == Some(*field) || contract.fields()[*field].transform == Transform::Keep;
        let holds = |node: &Node| node.below.contains(&stamp);
        let around: Vec<bool> = self.nodes.iter().map(holds).collect();
        let all_plain: Vec<bool> = self.nodes.iter().map(|node| node.below.iter().all(plain)).collect();
        for child in self.nodes.iter_mut().flat_map(|node| &mut node.children) {
            let is_stamp = child.field == Some(stamp);
            child.is_stamp = is_stamp && child.node.is_some_and(|node| all_plain[node]);
            child.holds_stamp = is_stamp || child.node.is_some_and(|node| around[node]);
        }
    }

    fn child(&mut self, node: usize, key: &str) -> usize {
        let children = &mut self.nodes[node].children;
        children.iter().position(|child| *child.key == *key).unwrap_or_else(|| {
            let (kind, quick) = (FieldKind::Object, Quick::NONE);
            let key_literals = [",", ""].map(|before| Literal::of_key(before, key, ":"));
            children.push(Child {
                key: key.into(),
                field: None,
                node: None,
                kind,
                key_literals,
                bit: 0,
                quick,
                is_stamp: false,
                holds_stamp: false,
            });
            children.len() - 1
        })
    }

    fn object(&mut self, node: usize, child: usize) -> usize {
        if let Some(there) = self.nodes[node].children[child].node {
            return there;
        }
        let prefix = format!("{}{}.", self.nodes[node].prefix, self.nodes[node].children[child].key);
        self.nodes.push(Node { prefix, ..Node::default() });
        let made = self.nodes.len() - 1;
        self.nodes[node].children[child].node = Some(made);
        made
    }
}
