//! One spawn for many lines: which slugs and descriptions come out.

use std::collections::HashSet;

use super::spec::segment;
use crate::invalid::Invalid;

/// Lines of one call.
const EACH_MAX: usize = 200;
const HOLE: &str = "{}";

/// One agent to spawn: its slug as typed and its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct One {
    pub(super) slug: String,
    pub(super) description: String,
}

/// What is to be spawned. Two lines that come out as the same slug are told apart by `-2`, `-3`, ….
pub(super) fn each(slug: &str, description: &str, lines: &[String]) -> Result<Vec<One>, Invalid> {
    if lines.is_empty() {
        return Ok(vec![One { slug: slug.to_owned(), description: description.to_owned() }]);
    }
    if lines.len() > EACH_MAX {
        return Err(Invalid::new("each", format!("must be at most {EACH_MAX} lines, got {}", lines.len())));
    }
    if !slug.contains(HOLE) {
        return Err(Invalid::new("slug", "must hold {} when `each` is given, or all would have the same name"));
    }
    let mut taken = HashSet::new();
    lines
        .iter()
        .map(|line| {
            let name = segment(line)?;
            let name = (1..).map(|number| numbered(name.as_str(), number)).find(|name| taken.insert(name.clone()));
            let slug = slug.replace(HOLE, &name.unwrap_or_default());
            Ok(One { slug, description: description.replace(HOLE, line) })
        })
        .collect()
}

/// A segment with a number behind it, no longer than a segment may be.
fn numbered(name: &str, number: usize) -> String {
    if number == 1 {
        return name.to_owned();
    }
    let suffix = format!("-{number}");
    let room = murmur_core::limits::SLUG_SEGMENT_BYTES_MAX - suffix.len();
    format!("{}{suffix}", name.get(..room.min(name.len())).unwrap_or(name).trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slugs(slug: &str, lines: &[&str]) -> Result<Vec<String>, &'static str> {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        each(slug, "look at {}", &lines)
            .map(|all| all.into_iter().map(|one| one.slug).collect())
            .map_err(|invalid| invalid.field)
    }

    #[test]
    fn lines_become_segments_and_stay_apart() {
        assert_eq!(slugs("fix-{}", &["src/a.rs", "Src A.rs"]).unwrap(), ["fix-src-a-rs", "fix-src-a-rs-2"]);
        let long = "x".repeat(80);
        let made = slugs("{}", &[&long, &long]).unwrap();
        assert!(made.iter().all(|slug| slug.len() <= 63) && made[0] != made[1]);
        let described = each("{}", "look at {}", &["src/a.rs".to_owned()]).unwrap();
        assert_eq!(described[0].description, "look at src/a.rs");
    }

    #[test]
    fn what_cannot_be_told_apart_or_named_is_refused() {
        assert_eq!(slugs("same", &["a"]), Err("slug"));
        assert_eq!(slugs("{}", &["???"]), Err("each"));
        assert_eq!(slugs("{}", &["a"; 201]), Err("each"));
    }
}
