//! Checks a graph's structure: what in it could break a server, and what must be rewritten (promise
//! P8).
//!
//! ComfyUI checks the nodes that an output needs, and then visits *all* of them in its worker,
//! where nothing is caught (0.3.64 to 0.33: `execution.py` `execute_async`, `caching.py`,
//! `graph.py` `add_node`). A graph that raises an error there leaves a server that answers
//! everything and runs nothing any more. Errors that ComfyUI itself answers with 400 are left to
//! it.
//!
//! The check is one pass over the bytes; the graph is never built. As in Python, the last of
//! several equal keys counts.

mod classes;
pub(super) mod cursor;
mod depth;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

pub use classes::{Classes, Unknown};
use cursor::{Cursor, said};
use depth::Ancestors;

/// The longest chain of nodes in a graph. Python raises an error at about a thousand.
pub const DEPTH_MAX: usize = 500;

/// The most nodes and links of a graph. What is kept for each is in no memory budget.
pub const NODES_MAX: usize = 100_000;
pub const LINKS_MAX: usize = 1_000_000;

/// How large most nodes are at least: for the first guess of how many there are.
const NODE_BYTES: usize = 256;
const NODES_GUESSED_MAX: usize = 1_024;

/// The most steps that it takes to follow every link above every node. A server follows them all
/// and remembers each. Measured with 0.33: a graph of 4,000 nodes with 8 million ancestors keeps a
/// server busy for minutes, in which it hardly answers.
pub const STEPS_MAX: usize = 10_000_000;

/// A graph with at most this many links and at most [`DEPTH_MAX`] nodes is within the other bounds.
const LINKS_PLAIN: usize = 10_000;

/// The longest node id, in bytes. Pages use numbers, or UUIDs joined by colons.
pub const ID_MAX: usize = 256;

/// Why a graph must not reach a server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "This is no graph in API format: it is a workflow as the page saves it, or has a graph \
         further inside. Export the workflow with \"Export (API)\"."
    )]
    NotApiFormat,
    #[error("Node '{node}' is not an object. Export the workflow with \"Export (API)\".")]
    NotAnObject { node: String },
    #[error("Node '{node}' has a class_type that is not a string")]
    ClassNotAString { node: String },
    #[error("Node '{node}' has no inputs; a node that needs none has {{}}")]
    NoInputs { node: String },
    #[error("Node '{node}' has inputs that are not an object")]
    InputsNotAnObject { node: String },
    #[error("Node '{node}' has a list as value that ComfyUI takes for a link and does not check")]
    LinkInValue { node: String },
    #[error("A node id has {bytes} bytes; it may have {ID_MAX}")]
    LongId { bytes: usize },
    #[error("The graph has more than {DEPTH_MAX} nodes one after the other")]
    TooDeep,
    #[error("The graph has more than {NODES_MAX} nodes or {LINKS_MAX} links")]
    TooLarge,
    #[error("Too much of the graph depends on too much of the rest")]
    TooTangled,
}

/// Parts of a graph that must be rewritten, in their order.
pub type Edits = Vec<(Range<usize>, String)>;

/// Checks a graph: a valid JSON object.
///
/// # Errors
/// The graph would break a server, or be answered with 500.
pub fn judge(json: &[u8], classes: &dyn Classes) -> Result<Edits, Unfit> {
    let skeleton = Skeleton::read(json)?;
    skeleton.check()?;
    skeleton.edits(classes)
}

/// The type of a node's member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Is {
    Missing,
    Object,
    List,
    /// A string, a number or another simple value.
    Plain,
}

impl Is {
    fn of(first: u8) -> Self {
        match first {
            b'{' => Self::Object,
            b'[' => Self::List,
            _ => Self::Plain,
        }
    }
}

/// One member of the graph.
#[derive(Debug)]
struct Node<'a> {
    id: Cow<'a, [u8]>,
    is: Is,
    class: Is,
    class_at: Range<usize>,
    inputs: Is,
    meta: Is,
    /// Where `_meta` is, if the node has it.
    meta_at: Range<usize>,
    /// Where its closing brace is.
    end: usize,
    /// The range of its links in the list of all links.
    links: Range<usize>,
}

/// An input that ComfyUI reads as a link (`graph_utils.py`, `is_link`).
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The name of the input.
    input: Place,
    /// The id of the other node, and the number of its output.
    target: Place,
    slot: Place,
    how: Linked,
}

/// A range in the body, in a few bytes. No body is too large for this.
#[derive(Clone, Copy, Debug)]
struct Place(u32, u32);

impl Place {
    fn of(at: &Range<usize>) -> Option<Self> {
        let (start, end) = (u32::try_from(at.start).ok(), u32::try_from(at.end).ok());
        start.zip(end).map(|(start, end)| Self(start, end))
    }

    fn range(self) -> Range<usize> {
        self.0 as usize..self.1 as usize
    }
}

/// How a link is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Linked {
    Plainly,
    /// As a value, `{"__value__": ["1", 0]}`: the validation unwraps it without checking it, and
    /// then it is a link.
    AsValue,
}

#[derive(Debug)]
struct Skeleton<'a> {
    json: &'a [u8],
    nodes: Vec<Node<'a>>,
    /// The last node of each id.
    ids: HashMap<Cow<'a, [u8]>, usize>,
    links: Vec<Link>,
}

impl<'a> Skeleton<'a> {
    fn read(json: &'a [u8]) -> Result<Self, Unfit> {
        let ids = HashMap::with_capacity((json.len() / NODE_BYTES).min(NODES_GUESSED_MAX));
        let mut skeleton = Self { json, nodes: Vec::new(), ids, links: Vec::new() };
        let mut unfit = None;
        let mut cursor = Cursor::new(json);
        cursor.peek();
        cursor.object(|cursor, key| {
            if unfit.is_some() {
                cursor.skip();
                return;
            }
            unfit = skeleton.node(cursor, key).err();
        });
        unfit.map_or(Ok(skeleton), Err)
    }

    fn node(&mut self, cursor: &mut Cursor<'a>, key: Range<usize>) -> Result<(), Unfit> {
        let id = said(self.json, key);
        if ID_MAX < id.len() {
            return Err(Unfit::LongId { bytes: id.len() });
        }
        let node = self.read_node(cursor, id.clone());
        if self.nodes.len() == NODES_MAX || LINKS_MAX < self.links.len() {
            return Err(Unfit::TooLarge);
        }
        self.ids.insert(id, self.nodes.len());
        self.nodes.push(node);
        Ok(())
    }

    fn read_node(&mut self, cursor: &mut Cursor<'a>, id: Cow<'a, [u8]>) -> Node<'a> {
        let none = self.links.len()..self.links.len();
        let mut node = Node {
            id,
            is: Is::of(cursor.peek()),
            class: Is::Missing,
            class_at: 0..0,
            inputs: Is::Missing,
            meta: Is::Missing,
            meta_at: 0..0,
            end: 0,
            links: none,
        };
        if node.is != Is::Object {
            cursor.skip();
            return node;
        }
        node.end = cursor.object(|cursor, key| match &*said(self.json, key) {
            b"class_type" => {
                node.class = Is::of(cursor.peek());
                node.class_at = cursor.skip();
            }
            b"_meta" => {
                node.meta = Is::of(cursor.peek());
                node.meta_at = cursor.skip();
            }
            b"inputs" => {
                node.inputs = Is::of(cursor.peek());
                let first = self.links.len();
                self.read_inputs(cursor, node.inputs);
                node.links = first..self.links.len();
            }
            _ => drop(cursor.skip()),
        });
        node
    }

    fn read_inputs(&mut self, cursor: &mut Cursor<'a>, is: Is) {
        if is != Is::Object {
            cursor.skip();
            return;
        }
        cursor.object(|cursor, name| match cursor.peek() {
            b'[' => self.links.extend(link(cursor, &name, Linked::Plainly)),
            b'{' => {
                let mut value = None;
                cursor.object(|cursor, key| {
                    let is_value = &*said(self.json, key) == b"__value__";
                    if is_value && cursor.peek() == b'[' {
                        value = link(cursor, &name, Linked::AsValue);
                    } else {
                        cursor.skip();
                        value = value.filter(|_| !is_value);
                    }
                });
                self.links.extend(value);
            }
            _ => drop(cursor.skip()),
        });
    }

    /// The nodes that Python would see, with their indexes.
    fn counting(&self) -> impl Iterator<Item = (usize, &Node<'a>)> {
        let counts = |(at, node): &(usize, &Node<'a>)| self.counts(*at, node);
        self.nodes.iter().enumerate().filter(counts)
    }

    /// False for a node whose id comes again later.
    fn counts(&self, at: usize, node: &Node<'_>) -> bool {
        // Mostly there is no such node, and then nothing is looked up.
        self.ids.len() == self.nodes.len() || self.ids.get(&node.id) == Some(&at)
    }

    fn links_of(&self, node: &Node<'_>) -> &[Link] {
        self.links.get(node.links.clone()).unwrap_or(&[])
    }

    fn target_of(&self, link: Link) -> Option<usize> {
        self.ids.get(&said(self.json, link.target.range())).copied()
    }

    fn check(&self) -> Result<(), Unfit> {
        if self.is_saved_by_the_page() || self.is_around_a_graph() {
            return Err(Unfit::NotApiFormat);
        }
        self.counting().try_for_each(|(_, node)| node.check())?;
        if self.ids.len() <= DEPTH_MAX && self.links.len() <= LINKS_PLAIN {
            return Ok(());
        }
        let ancestors = self.ancestors();
        if DEPTH_MAX < ancestors.depth() {
            return Err(Unfit::TooDeep);
        }
        if ancestors.walks_exceed(STEPS_MAX) { Err(Unfit::TooTangled) } else { Ok(()) }
    }

    fn is_saved_by_the_page(&self) -> bool {
        let nodes = self.ids.get(&b"nodes"[..]).and_then(|at| self.nodes.get(*at));
        nodes.is_some_and(|nodes| nodes.is == Is::List)
    }

    /// True for an object around a graph: functions of the page return `output` and `workflow`, and
    /// some clients wrap the body of a submission twice.
    fn is_around_a_graph(&self) -> bool {
        let is_node = |node: &Node<'_>| node.class != Is::Missing || node.inputs != Is::Missing;
        let may_hold_one = |node: &Node<'_>| {
            node.is == Is::Object && matches!(&*node.id, b"output" | b"workflow" | b"prompt")
        };
        self.nodes.iter().any(may_hold_one) && !self.nodes.iter().any(is_node)
    }

    fn ancestors(&self) -> Ancestors {
        let mut ancestors = Ancestors::with_capacity(self.nodes.len(), self.links.len());
        for (at, node) in self.nodes.iter().enumerate() {
            if self.counts(at, node) {
                let targets = self.links_of(node).iter().filter_map(|link| self.target_of(*link));
                targets.for_each(|at| ancestors.push(u32::try_from(at).unwrap_or(u32::MAX)));
            }
            ancestors.end_node();
        }
        ancestors
    }

    fn edits(&self, classes: &dyn Classes) -> Result<Edits, Unfit> {
        let mut edits = Edits::new();
        for (_, node) in self.counting() {
            edits.extend(node.meta_edit());
            let links = self.links_of(node);
            if links.iter().any(|link| link.how == Linked::AsValue) {
                return Err(Unfit::LinkInValue { node: node.name() });
            }
            // The rewritten input is no link any more, and is still refused where the link would
            // have been: the validation reads each list of two as a link. An input that the class
            // does not have is not validated; its link to a missing node would end the worker.
            let class = if links.is_empty() { None } else { self.class_of(node) };
            let class = class.as_deref();
            let bad = links.iter().filter(|link| !self.is_good(class, **link, classes));
            edits.extend(bad.map(|link| (link.slot.range(), "null".to_owned())));
        }
        edits.sort_by_key(|(at, _)| at.start);
        Ok(edits)
    }

    /// True if a link in a node of that class leads to an existing output, as far as is known.
    fn is_good(&self, class: Option<&str>, link: Link, classes: &dyn Classes) -> bool {
        let slot = &self.json[link.slot.range()];
        let target = self.target_of(link).and_then(|at| self.nodes.get(at));
        let Some(target) = target.filter(|_| is_whole(slot)) else { return false };
        let outputs = self.class_of(target).and_then(|class| classes.outputs(&class));
        if outputs.is_some_and(|outputs| !classes::has(outputs, slot)) {
            return false;
        }
        let named = class.zip(self.text_of(link.input.range()));
        !named.is_some_and(|(class, input)| classes.is_hidden(class, &input))
    }

    fn class_of(&self, node: &Node<'_>) -> Option<Cow<'a, str>> {
        self.text_of(node.class_at.clone())
    }

    fn text_of(&self, literal: Range<usize>) -> Option<Cow<'a, str>> {
        match said(self.json, literal) {
            Cow::Borrowed(said) => std::str::from_utf8(said).ok().map(Cow::Borrowed),
            Cow::Owned(said) => String::from_utf8(said).ok().map(Cow::Owned),
        }
    }
}

impl Node<'_> {
    fn name(&self) -> String {
        String::from_utf8_lossy(&self.id).into_owned()
    }

    /// ComfyUI itself reports a node without a class, before it looks at anything else.
    fn check(&self) -> Result<(), Unfit> {
        let unfit = match (self.is, self.class, self.inputs) {
            (Is::Missing | Is::List | Is::Plain, _, _) => Unfit::NotAnObject { node: self.name() },
            (Is::Object, Is::Missing, _) | (Is::Object, Is::Plain, Is::Object) => return Ok(()),
            (Is::Object, Is::Object | Is::List, _) => Unfit::ClassNotAString { node: self.name() },
            (Is::Object, Is::Plain, Is::Missing) => Unfit::NoInputs { node: self.name() },
            (Is::Object, Is::Plain, Is::List | Is::Plain) => {
                Unfit::InputsNotAnObject { node: self.name() }
            }
        };
        Err(unfit)
    }

    /// 0.33 reads `_meta` of nodes that it replaces and of nodes with an unknown class. It answers
    /// 500 if `_meta` is missing or not an object (`node_replace_manager.py`, `validate_prompt`).
    fn meta_edit(&self) -> Option<(Range<usize>, String)> {
        match (self.meta, self.class) {
            (Is::Object, _) | (Is::Missing, Is::Missing) => None,
            (Is::Missing, _) => Some((self.end..self.end, ", \"_meta\": {}".to_owned())),
            (Is::List | Is::Plain, _) => Some((self.meta_at.clone(), "{}".to_owned())),
        }
    }
}

/// The link that begins here, if there is one.
fn link(cursor: &mut Cursor<'_>, input: &Range<usize>, how: Linked) -> Option<Link> {
    let (mut target, mut slot) = (None, None);
    let count = cursor.list(|cursor, index| {
        let first = cursor.peek();
        let at = cursor.skip();
        match (index, first) {
            (0, b'"') => target = Place::of(&at),
            (1, b'-' | b'0'..=b'9' | b't' | b'f') => slot = Place::of(&at),
            _ => {}
        }
    });
    let (input, target, slot) = (Place::of(input)?, target?, slot?);
    (count == 2).then_some(Link { input, target, slot, how })
}

/// In Python `true` and `false` are integers; `1.0` is not one, and cannot be an index.
fn is_whole(slot: &[u8]) -> bool {
    matches!(slot.first(), Some(b't' | b'f'))
        || !slot.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}
