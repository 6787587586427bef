//! Writes `docs/placement.md`.

use std::fmt::Write;

use crate::bounds::{Figure, Held};
use crate::cases::Case;
use crate::guesses::Row;
use crate::runs::{Column, Which, Who};

const HEAD: &str = "# Placement

Which prompt runs next, and where? This page compares the rule for a queue in the gateway with what
others do and with what Mooring does today, on simulated fleets. `make bench-placement` writes it,
with its picture; do not edit it by hand.

**The gateway uses this queue if `queue.depth` is not 0** ([queue.md](queue.md)), with spread 1. By
default a prompt still goes into a backend's own queue the moment it is submitted, by the rule in
the row *Mooring 0.1*.

The rule is the code in `src/queue/`, run as it is in virtual time. The fleet has 8 unequal GPUs:
speed 2.2 with 72 GB for models; three of 1.0 with 20 GB; two of 0.9 with 42 GB; two of 0.55 with
20 GB. Each has 48 GB of memory and a disk of 0.8 GB/s; a model takes 0.4 s and 6 GB/s from memory
to the GPU. All rules get the same arrivals; every figure is the mean of four seeds.

- *team*: three people for each GPU, who try things, and a bot for every four GPUs. 18 models,
  batches of 4 to 100, 2 % video.
- *many*: a service with 1,700 visits and 87 models, and no batches. It has the published statistics
  of GenTD26, a trace of a text-to-image service, and it is not that trace.
- *load*: the work of all prompts, as a part of what the fleet could do without loading a model.
- *ideal*: a clairvoyant that interrupts and moves prompts and never loads a model. Nothing real
  reaches it.
- *spread*: on how many backends one client's prompts may be at the same time. With 1 a client stays
  at one backend until all its prompts have ended.
- The weights of the backends in the rows of 0.1 and of the least queue are their true speeds. The
  queue is told no speeds; it learns them. It is told how long each load was, which the gateway
  guesses from the first step of a run.

Times are in seconds from submission to picture. *Single* are prompts that were submitted alone,
videos excepted. The time of a batch is that of its last picture. *Cold* are starts of a hundred for
which the base model had to be loaded. *Jain* is Jain's index of one by the mean slowdown of each
person: 1 if all are served equally well.
";

/// Only the figures; the plot is a file of its own beside it.
pub(crate) fn page(
    columns: &[Column; 4],
    held: &[Held],
    cases: &[Case],
    guesses: &[Row],
) -> String {
    let mut out = HEAD.to_owned();
    out.push_str("\n![Mean time to picture against load](placement.svg)\n");
    for column in columns {
        table(&mut out, column);
    }
    goals(&mut out, columns, held);
    small(&mut out, cases);
    forecast(&mut out, guesses);
    out
}

fn title(column: &Column) -> String {
    title_of(column.who, column.load)
}

fn title_of(who: Who, load: f64) -> String {
    let who = match who {
        Who::Team => "team",
        Who::Many => "many",
    };
    format!("{who}, load {load}")
}

fn table(out: &mut String, column: &Column) {
    let (title, jobs, ideal) = (title(column), column.jobs, column.ideal);
    let _ = write!(
        out,
        "\n## {title}\n\n{jobs} prompts in four seeds. *ideal*: {ideal:.0} s in the mean.\n\n\
         | Rule | mean | mean / *ideal* | p95 | single p95 | single p99 | batch p50 | cold | \
         Jain |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for (which, it) in &column.rows {
        let batch = match column.who {
            Who::Team => format!("{:.0}", it.batch_p50),
            Who::Many => "–".to_owned(),
        };
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} | {batch} | {:.0} | {:.2} |",
            which.name(),
            it.mean,
            it.mean / ideal,
            it.p95,
            it.single_p95,
            it.single_p99,
            it.cold,
            it.jain,
        );
    }
}

fn goals(out: &mut String, columns: &[Column; 4], held: &[Held]) {
    out.push_str(
        "\n## Goals\n\nThe goals were set with an earlier simulation, whose arrivals are not the \
         same. `make bench-placement`\nfails if one is missed, but for those that are known to be \
         missed: they say *missed*, and what holds\ninstead.\n\n| |",
    );
    for column in columns {
        let _ = write!(out, " {} |", title(column));
    }
    out.push_str("\n|---|---|---|---|---|\n");
    for row in held {
        let _ = write!(out, "| {} |", row.what);
        for figure in &row.figures {
            let _ = write!(out, " {} |", figure.map_or_else(String::new, cell));
        }
        out.push('\n');
    }
}

fn cell(it: Figure) -> String {
    let Figure { measured, goal, .. } = it;
    match (it.is_reached(), it.instead) {
        (true, _) => format!("{measured:.3} ({goal})"),
        (false, None) => format!("**{measured:.3}, fails** ({goal})"),
        (false, Some(instead)) => format!("**{measured:.3}, missed** ({goal}; held: {instead})"),
    }
}

fn small(out: &mut String, cases: &[Case]) {
    out.push_str("\n## Small cases\n\n| | Mooring 0.1 | the queue | goal |\n|---|---|---|---|\n");
    for Case { what, today, ours, goal, is_met } in cases {
        let mark = if *is_met { "" } else { " **missed**" };
        let _ = writeln!(out, "| {what} | {today} | {ours}{mark} | {goal} |");
    }
}

const FORECAST: &str = "
## The forecast

What the queue tells a prompt that has to wait: in how many seconds it should start
([queue.md](queue.md#where-a-prompt-stands)). It was asked for every tenth prompt when that was
submitted, and compared with what happened. What came later and passed it, and prompts that took
longer or shorter than expected, are all in it. *Off* is the difference between the two in seconds.
The ratio is the real wait as a part of the expected one, both of at least a second: 1 is exact, 2
is twice as long as was told.

| | prompts | not told | real wait p50 | off p50 | off p90 | ratio p10 | p50 | p90 |
|---|---|---|---|---|---|---|---|---|
";

fn forecast(out: &mut String, rows: &[Row]) {
    out.push_str(FORECAST);
    for it in rows {
        let spread = match it.spread {
            0 => "no limit".to_owned(),
            spread => format!("spread {spread}"),
        };
        let _ = writeln!(
            out,
            "| {}, {spread} | {} | {} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
            title_of(it.who, it.load),
            it.asked,
            it.untold,
            it.wait_p50,
            it.off_p50,
            it.off_p90,
            it.ratio_p10,
            it.ratio_p50,
            it.ratio_p90,
        );
    }
}

/// The lines of the plot: name, colour, rule.
pub(crate) const LINES: [(&str, &str, Which); 6] = [
    ("least queue for each prompt", "#999999", Which::LeastQueue),
    ("Mooring 0.1", "#d62728", Which::Today),
    ("SwarmUI's rule", "#ff7f0e", Which::Swarm),
    ("the queue, spread 1", "#9467bd", Which::Ours(1)),
    ("the queue, spread 2", "#1f77b4", Which::Ours(2)),
    ("the queue, no limit", "#2ca02c", Which::Ours(0)),
];
