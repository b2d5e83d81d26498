//! The contract as a decoder wants it: a tree of the declared properties.

use ameles_schemas::{Contract, FieldKind};

/// A declared object: which keys it may have.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) children: Vec<Child>,
    /// Fields below, at whatever depth: forgotten when the object's key comes again.
    pub(crate) below: Vec<usize>,
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
}

/// The tree of a contract's properties, and each field's enclosing object.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<Node>,
    /// For each field, the field of the object around it.
    pub(crate) parents: Vec<Option<usize>>,
}

impl Plan {
    pub(crate) fn new(contract: &Contract) -> Self {
        let mut plan = Self { nodes: vec![Node::default()], parents: vec![None; contract.fields().len()] };
        for (field, declared) in contract.fields().iter().enumerate() {
            let mut node = 0;
            let last = declared.path.len().saturating_sub(1);
            for (depth, key) in declared.path.iter().enumerate() {
                let child = plan.child(node, key);
                if depth == last {
                    plan.nodes[node].children[child].field = Some(field);
                    plan.nodes[node].children[child].kind = declared.kind;
                } else {
                    let around = plan.nodes[node].children[child].field;
                    plan.parents[field] = around.or(plan.parents[field]);
                    node = plan.object(node, child);
                    plan.nodes[node].below.push(field);
                }
            }
        }
        plan
    }

    fn child(&mut self, node: usize, key: &str) -> usize {
        let children = &mut self.nodes[node].children;
        children.iter().position(|child| *child.key == *key).unwrap_or_else(|| {
            children.push(Child { key: key.into(), field: None, node: None, kind: FieldKind::Object });
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
