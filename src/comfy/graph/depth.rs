//! Finds the longest chain of nodes in a graph.
//!
//! ComfyUI visits the ancestors of each node by recursion (0.33 `caching.py`,
//! `get_ordered_ancestry_internal`), and Python's stack has about a thousand levels. All nodes of a
//! cycle count, each once: no recursion goes deeper than that.

/// For each node, the nodes that its inputs come from.
#[derive(Debug, Default)]
pub(super) struct Ancestors {
    /// Where the ancestors of each node begin in `nodes`, and at the end where the last ones end.
    starts: Vec<u32>,
    nodes: Vec<u32>,
}

impl Ancestors {
    pub(super) fn with_capacity(nodes: usize, links: usize) -> Self {
        let mut starts = Vec::with_capacity(nodes + 1);
        starts.push(0);
        Self { starts, nodes: Vec::with_capacity(links) }
    }

    /// Adds an ancestor of the current node.
    pub(super) fn push(&mut self, ancestor: u32) {
        self.nodes.push(ancestor);
    }

    /// Ends the current node; the next one begins.
    pub(super) fn end_node(&mut self) {
        self.starts.push(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
    }

    fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    fn of(&self, node: usize) -> &[u32] {
        let bounds = self.starts.get(node).zip(self.starts.get(node + 1));
        let range = bounds.map(|(start, end)| *start as usize..*end as usize);
        range.and_then(|range| self.nodes.get(range)).unwrap_or(&[])
    }

    /// True if following every link above every node takes more than `max` steps. ComfyUI follows
    /// them all, and keeps the results (0.33 `caching.py`, `get_node_signature`).
    pub(super) fn walks_exceed(&self, max: usize) -> bool {
        if self.len().saturating_mul(self.len() + self.nodes.len()) <= max {
            return false;
        }
        let mut seen = vec![UNSEEN; self.len()];
        let (mut open, mut steps) = (Vec::new(), 0_usize);
        for start in 0..self.len() {
            let stamp = u32::try_from(start).unwrap_or(UNSEEN);
            seen[start] = stamp;
            open.push(start);
            while let Some(node) = open.pop() {
                let ancestors = self.of(node);
                steps += 1 + ancestors.len();
                if max < steps {
                    return true;
                }
                for ancestor in ancestors.iter().map(|ancestor| *ancestor as usize) {
                    if std::mem::replace(&mut seen[ancestor], stamp) != stamp {
                        open.push(ancestor);
                    }
                }
            }
        }
        false
    }

    /// The number of nodes in the longest chain.
    pub(super) fn depth(&self) -> usize {
        let mut search = Search::new(self.len());
        for node in 0..self.len() {
            if search.order[node] == UNSEEN {
                search.run(self, node);
            }
        }
        search.deepest as usize
    }
}

const UNSEEN: u32 = u32::MAX;

/// Tarjan's algorithm for strongly connected components (here: cycles), without recursion. A cycle
/// is closed only after everything that it leads to, so their depths are known by then.
struct Search {
    /// When each node was reached, and the earliest node that it leads back to.
    order: Vec<u32>,
    earliest: Vec<u32>,
    met: u32,
    /// The depth of nodes whose cycle is closed; 0 for open ones.
    depths: Vec<u32>,
    /// Nodes that were reached and are in no closed cycle.
    open: Vec<u32>,
    /// The path to the current node: each node, and which of its ancestors is next.
    way: Vec<(u32, u32)>,
    deepest: u32,
}

impl Search {
    fn new(nodes: usize) -> Self {
        Self {
            order: vec![UNSEEN; nodes],
            earliest: vec![UNSEEN; nodes],
            met: 0,
            depths: vec![0; nodes],
            open: Vec::new(),
            way: Vec::new(),
            deepest: 0,
        }
    }

    fn run(&mut self, graph: &Ancestors, from: usize) {
        self.meet(from);
        while let Some((node, next)) = self.way.last_mut() {
            let at = *node as usize;
            let ancestor = graph.of(at).get(*next as usize).map(|ancestor| *ancestor as usize);
            *next += 1;
            match ancestor {
                Some(ancestor) if self.order[ancestor] == UNSEEN => self.meet(ancestor),
                Some(ancestor) if self.depths[ancestor] == 0 => {
                    self.earliest[at] = self.earliest[at].min(self.order[ancestor]);
                }
                Some(_) => {}
                None => self.leave(graph, at),
            }
        }
    }

    fn meet(&mut self, node: usize) {
        self.order[node] = self.met;
        self.earliest[node] = self.met;
        self.met += 1;
        let node = u32::try_from(node).unwrap_or(UNSEEN);
        self.open.push(node);
        self.way.push((node, 0));
    }

    fn leave(&mut self, graph: &Ancestors, node: usize) {
        self.way.pop();
        if self.earliest[node] == self.order[node] {
            self.close(graph, node);
        }
        if let Some((before, _)) = self.way.last() {
            let before = *before as usize;
            self.earliest[before] = self.earliest[before].min(self.earliest[node]);
        }
    }

    /// Closes a cycle: `node` and everything open that was reached after it.
    fn close(&mut self, graph: &Ancestors, node: usize) {
        let since = self.open.iter().rposition(|open| *open as usize == node).unwrap_or(0);
        let circle = self.open.split_off(since);
        let beyond = circle.iter().flat_map(|member| graph.of(*member as usize));
        let beyond = beyond.map(|ancestor| self.depths[*ancestor as usize]).max().unwrap_or(0);
        let depth = beyond.saturating_add(u32::try_from(circle.len()).unwrap_or(UNSEEN));
        for member in circle {
            self.depths[member as usize] = depth;
        }
        self.deepest = self.deepest.max(depth);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn graph(nodes: &[Vec<u32>]) -> Ancestors {
        let mut graph = Ancestors::with_capacity(nodes.len(), 0);
        for ancestors in nodes {
            ancestors.iter().for_each(|ancestor| graph.push(*ancestor));
            graph.end_node();
        }
        graph
    }

    #[test]
    fn the_longest_way_counts_wherever_it_begins() {
        assert_eq!(graph(&[]).depth(), 0);
        assert_eq!(graph(&[vec![], vec![]]).depth(), 1);
        assert_eq!(graph(&[vec![1, 2], vec![2], vec![3], vec![]]).depth(), 4);
        let chain: Vec<Vec<u32>> = (0..200_000).map(|node| vec![node + 1]).collect();
        let chain = [&chain[..], &[Vec::new()]].concat();
        assert_eq!(graph(&chain).depth(), 200_001);
    }

    #[test]
    fn a_circle_ends_and_counts_once() {
        assert_eq!(graph(&[vec![0]]).depth(), 1);
        assert_eq!(graph(&[vec![1], vec![2], vec![0]]).depth(), 3);
        assert_eq!(graph(&[vec![1], vec![2], vec![1, 3], vec![]]).depth(), 4);
    }

    #[test]
    fn the_steps_of_all_walks_are_counted() {
        // 1 + (1 + 1 + 1) + (1 + 1 + 1 + 1 + 1) …
        let chain: Vec<Vec<u32>> =
            (0..100_u32).map(|node| node.checked_sub(1).into_iter().collect()).collect();
        assert!(!graph(&chain).walks_exceed(10_000) && graph(&chain).walks_exceed(9_999));
        let circle = [vec![1], vec![0]];
        assert!(!graph(&circle).walks_exceed(8) && graph(&circle).walks_exceed(7));
        // A few nodes with many links to the same node.
        let dense = [vec![], vec![0; 1_000], vec![1; 1_000]];
        assert!(!graph(&dense).walks_exceed(3_006) && graph(&dense).walks_exceed(3_000));
        assert!(!graph(&[]).walks_exceed(0));
    }

    /// ComfyUI's own recursion: how deep it goes from one node.
    fn walked(nodes: &[Vec<u32>], node: usize, seen: &mut Vec<bool>) -> usize {
        let mut deepest = 0;
        for ancestor in &nodes[node] {
            let ancestor = *ancestor as usize;
            if !std::mem::replace(&mut seen[ancestor], true) {
                deepest = deepest.max(walked(nodes, ancestor, seen));
            }
        }
        deepest + 1
    }

    proptest! {
        #[test]
        fn no_walk_of_comfyui_is_deeper(
            nodes in proptest::collection::vec(
                proptest::collection::vec(0..12_u32, 0..4),
                12..=12,
            ),
        ) {
            let depth = graph(&nodes).depth();
            for start in 0..nodes.len() {
                let walked = walked(&nodes, start, &mut vec![false; nodes.len()]);
                // It visits its own start once more if that is in a cycle.
                prop_assert!(walked <= depth + 1, "{walked} from {start}, {depth}");
            }
        }

        #[test]
        fn without_circles_it_is_the_longest_way(
            nodes in (1..14_u32).prop_flat_map(|count| {
                (0..count).map(|node| {
                    // Only to later nodes.
                    proptest::collection::vec(node + 1..=count, 0..4)
                }).collect::<Vec<_>>()
            }),
        ) {
            let count = nodes.len() + 1;
            let nodes = [&nodes[..], &[Vec::new()]].concat();
            let mut longest = vec![1_usize; count];
            for node in (0..count).rev() {
                for ancestor in &nodes[node] {
                    longest[node] = longest[node].max(1 + longest[*ancestor as usize]);
                }
            }
            prop_assert_eq!(graph(&nodes).depth(), longest.into_iter().max().unwrap_or(0));
        }
    }
}
