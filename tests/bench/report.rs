//! docs/BENCHMARKS.md and its charts, from the figures of runs. The layout is fixed; every figure is from a run.

use std::{fs, path::Path};

use crate::{
    model::{Results, Section},
    print, svg,
};

/// Sections in the order in which they are shown.
const ORDER: [&str; 13] = [
    "latency",
    "load",
    "roundtrip",
    "throughput",
    "sizes",
    "memory",
    "outbox",
    "scale",
    "restart",
    "agents",
    "events",
    "shim",
    "limits",
];
const MODES: [(&str, &str); 2] =
    [("default", "Broker in its default file mode"), ("sync-always", "Broker with sync-always")];
const INTRO: &str = "# Benchmarks

Made by `murmur-bench report` from the figures of the runs; do not edit. To make it again:

```
make bench        # the core of it, both modes of the broker, about six minutes
make bench-full   # everything, about half an hour
```

Two nodes on one machine, each with its own store, exchange end-to-end encrypted messages through a real broker; everything, the
measuring program and its own clients included, shares the processors. A message counts as accepted when its row is on the sender's
disk, and as delivered when the receiving agent's program has it, which is after its row is on the receiver's disk. The *raw* figures
are of the same broker binary without Murmur, on the same disk, measured in the same rounds in turn. Where there are several rounds,
the median is given with the smallest and the largest in parentheses. The limits on what one pair and one node may send are raised for
the runs; everything else has its defaults. Absolute figures are of one machine and one day: compare ratios.
";

/// Writes the page and its pictures.
pub(crate) fn write(results: &Results, docs: &Path) {
    let pictures = docs.join("bench");
    fs::create_dir_all(&pictures).unwrap();
    let mut page = format!("{INTRO}\n| | |\n|---|---|\n");
    for (what, value) in &results.environment {
        page += &format!("| {what} | {value} |\n");
    }
    page += &goals(results);
    for (mode, title) in MODES {
        let Some(sections) = results.modes.get(mode) else { continue };
        page += &format!("\n## {title}\n");
        for name in ORDER {
            if let Some(section) = sections.get(name) {
                page += &show(section, mode, &pictures);
            }
        }
    }
    fs::write(docs.join("BENCHMARKS.md"), page).unwrap();
}

/// What the project holds itself to, in both modes.
fn goals(results: &Results) -> String {
    let mut page = "\n## Goals\n\n| | goal | default file mode | sync-always |\n|---|---:|---:|---:|\n".to_owned();
    let of_mode = |mode: &str| {
        let sections = results.modes.get(mode);
        ORDER.iter().filter_map(move |name| sections?.get(*name)).flat_map(|section| section.headlines.clone())
    };
    let others: Vec<_> = of_mode("sync-always").collect();
    for headline in of_mode("default") {
        let cell = |headline: &crate::model::Headline| {
            format!("{}{}", headline.figure, if headline.is_met { "" } else { " ✗" })
        };
        let other = others.iter().find(|other| other.what == headline.what).map(cell).unwrap_or_default();
        page += &format!("| {} | {} | {} | {other} |\n", headline.what, headline.goal, cell(&headline));
    }
    page + "\n✗: missed.\n"
}

fn show(section: &Section, mode: &str, pictures: &Path) -> String {
    let mut page = format!("\n### {}\n\n{}\n", section.title, section.text);
    for chart in &section.charts {
        let suffix = if mode == "default" { String::new() } else { format!("-{mode}") };
        let file = format!("{}{suffix}.svg", chart.file);
        fs::write(pictures.join(&file), svg::draw(chart)).unwrap();
        page += &format!("\n![{}](bench/{file})\n", chart.title);
    }
    for table in &section.tables {
        page += &format!("\n{}", print::markdown(table));
    }
    page
}
