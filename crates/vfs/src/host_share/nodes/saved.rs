//! The state of the nodes: which files the guest knows, and where they were seen. Descriptors are opened again when
//! they are needed, and [`Nodes::descriptor`] then sees whether the file is still the same.

use std::collections::{BTreeMap, HashMap};

use saved_state::{Decoder, Error, Saved, record, require};

use super::{Identity, NODES_MAX, Node, Nodes, Table, Version};
use crate::attr::FileKind;
use crate::protocol::ROOT_ID;
use crate::saved::{Bytes, Room, require_ascending};
use crate::sync::lock;

/// Largest node id: more than a guest ever gets.
const ID_MAX: u64 = 1 << 62;

record! {
    /// [`Nodes`].
    pub(in crate::host_share) struct SavedNodes {
        /// Ascending by id.
        1 nodes: Vec<SavedNode>,
        2 next: u64,
    }
}

record! {
    /// [`Node`].
    pub(in crate::host_share) struct SavedNode {
        1 id: u64,
        2 identity: Identity,
        3 kind: FileKind,
        4 parent: u64,
        5 name: Bytes,
        6 uses: u64,
        7 version: Option<SavedVersion>,
    }
}

/// [`Version`].
pub(in crate::host_share) struct SavedVersion(Version);

impl Saved for SavedVersion {
    fn encode(&self, out: &mut Vec<u8>) {
        let (modified, modified_ns, changed, changed_ns, size) = self.0;
        modified.encode(out);
        modified_ns.encode(out);
        changed.encode(out);
        changed_ns.encode(out);
        size.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        Ok(Self((
            i64::decode(input)?,
            u32::decode(input)?,
            i64::decode(input)?,
            u32::decode(input)?,
            u64::decode(input)?,
        )))
    }
}

impl Saved for Identity {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { device, ino, born } = self;
        device.0.encode(out);
        device.1.encode(out);
        ino.encode(out);
        born.0.encode(out);
        born.1.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        Ok(Self {
            device: (u32::decode(input)?, u32::decode(input)?),
            ino: u64::decode(input)?,
            born: (i64::decode(input)?, u32::decode(input)?),
        })
    }
}

impl Nodes {
    pub(in crate::host_share) fn save(&self, room: &mut Room) -> Result<SavedNodes, crate::Error> {
        let Self {
            root: _,
            root_identity: _,
            descriptors_max: _,
            table,
        } = self;
        let table = lock(table);
        let Table {
            nodes,
            by_identity: _,
            by_age: _,
            clock: _,
            next,
        } = &*table;
        let mut saved = Vec::with_capacity(nodes.len());
        for (&id, node) in nodes {
            let Node {
                identity,
                kind,
                parent,
                name,
                uses,
                cached: _,
                version,
            } = node;
            room.take(3, name.len())?;
            saved.push(SavedNode {
                id,
                identity: *identity,
                kind: *kind,
                parent: *parent,
                name: Bytes(name.to_vec()),
                uses: *uses,
                version: version.map(SavedVersion),
            });
        }
        saved.sort_unstable_by_key(|node| node.id);
        Ok(SavedNodes {
            nodes: saved,
            next: *next,
        })
    }

    /// Takes the nodes in place of those there are.
    pub(in crate::host_share) fn restore(&self, saved: SavedNodes) -> Result<(), Error> {
        let SavedNodes { nodes, next } = saved;
        require((ROOT_ID + 1..=ID_MAX).contains(&next), "the next node id")?;
        require(nodes.len() <= NODES_MAX, "how many nodes there are")?;
        require_ascending(nodes.iter().map(|node| node.id), "the order of nodes")?;
        let mut table = Table {
            nodes: HashMap::new(),
            by_identity: HashMap::new(),
            by_age: BTreeMap::new(),
            clock: 0,
            next,
        };
        for saved in nodes {
            let id = saved.id;
            require((ROOT_ID + 1..next).contains(&id), "the id of a node")?;
            let other = table.by_identity.insert(saved.identity, id);
            require(other.is_none(), "two nodes of one file")?;
            table.nodes.insert(id, saved.into_node()?);
        }
        *lock(&self.table) = table;
        Ok(())
    }
}

impl SavedNode {
    fn into_node(self) -> Result<Node, Error> {
        let Self {
            id: _,
            identity,
            kind,
            parent,
            name,
            uses,
            version,
        } = self;
        require(uses > 0, "the uses of a node")?;
        // A file that was made without a name has none.
        let name = if name.0.is_empty() && kind == FileKind::Regular {
            name.0
        } else {
            name.into_name()?
        };
        Ok(Node {
            identity,
            kind,
            parent,
            name: name.into(),
            uses,
            cached: None,
            version: version.map(|version| version.0),
        })
    }
}
