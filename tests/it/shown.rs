//! What pages show: their blocks, and lines in which `…` stands for anything, and an id for the one that comes in its place.

use anyhow::Context;
use regex::Regex;
use std::collections::BTreeMap;

/// An id of ours.
const ID: &str = r"\b[a-z]+_[0-9a-hjkmnp-tv-z]{26}\b";

/// The blocks of a page: language and text.
pub(crate) fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

/// What stands below a heading, up to the next one of its level.
pub(crate) fn section<'a>(page: &'a str, heading: &str) -> anyhow::Result<&'a str> {
    let below = page.split_once(&format!("\n{heading}\n"));
    let (_, rest) = below.with_context(|| format!("there is no {heading}"))?;
    let level = heading.split(' ').next().unwrap_or_default();
    Ok(rest.split(&format!("\n{level} ")).next().unwrap_or_default())
}

/// Whether a line is what is shown.
pub(crate) fn fits(shown: &str, line: &str) -> bool {
    Ids::default().fits(shown, line)
}

/// The ids that a page shows, with those that came in their place.
#[derive(Debug, Default)]
pub(crate) struct Ids(BTreeMap<String, String>);

impl Ids {
    /// What is shown, with the ids that came.
    pub(crate) fn filled(&self, shown: &str) -> String {
        self.0.iter().fold(shown.to_owned(), |text, (id, came)| text.replace(id, came))
    }

    /// Whether a line is what is shown. Ids that are new then stand for those in the line.
    pub(crate) fn fits(&mut self, shown: &str, line: &str) -> bool {
        let literally = |text: &str| regex::escape(text).replace('…', ".*");
        let ids = Regex::new(ID).expect("the pattern is well formed");
        let (mut pattern, mut new, mut at) = (String::new(), Vec::new(), 0);
        for id in ids.find_iter(shown) {
            pattern += &literally(&shown[at..id.start()]);
            match self.0.get(id.as_str()) {
                Some(came) => pattern += came,
                None => {
                    new.push(id.as_str());
                    pattern += &format!("({ID})");
                }
            }
            at = id.end();
        }
        pattern = format!("(?s)^{pattern}{}$", literally(&shown[at..]));
        let pattern = Regex::new(&pattern).expect("escaped text is a pattern");
        let Some(found) = pattern.captures(line) else { return false };
        let came: Vec<(&str, &str)> =
            new.into_iter().zip(found.iter().skip(1).flatten().map(|id| id.as_str())).collect();
        // One that stands there twice is the same twice.
        let map: BTreeMap<&str, &str> = came.iter().copied().collect();
        let same = came.iter().all(|(id, came)| map[id] == *came);
        if same {
            self.0.extend(map.into_iter().map(|(id, came)| (id.to_owned(), came.to_owned())));
        }
        same
    }
}

#[test]
fn shown_lines_may_leave_something_out() {
    assert!(fits("a b", "a b") && !fits("a b", "a bc"));
    assert!(fits("…b…", "abc") && fits("a…c", "abc") && fits("a…", "a") && fits("…b…d", "abcd"));
    assert!(!fits("…x…", "abc") && !fits("b…", "abc") && !fits("…b", "abc"));
    assert!(fits(r#"{"a":[1]}"#, r#"{"a":[1]}"#) && !fits("a.c", "abc"));
}

#[test]
fn shown_ids_stand_for_those_that_come() {
    let id = |end: &str| format!("task_01m7y2jdy8eaesnvyqagw10r{end}");
    let (shown, came, other) = (id("n5"), id("aa"), id("bb"));
    let mut ids = Ids::default();
    let twice = |one: &str, two: &str| format!("{one} or {two}");
    assert!(!ids.fits(&twice(&shown, &shown), &twice(&came, &other)));
    assert!(ids.fits(&twice(&shown, &shown), &twice(&came, &came)));
    assert!(ids.fits(&shown, &came) && !ids.fits(&shown, &other) && !ids.fits(&shown, &shown));
    assert_eq!(ids.filled(&format!("task:{shown}")), format!("task:{came}"));
}

#[test]
fn sections_end_where_the_next_one_begins() -> anyhow::Result<()> {
    let page = "# Page\n\n## One\n\na\n### Below\nb\n## Two\nc\n";
    assert_eq!(section(page, "## One")?, "\na\n### Below\nb");
    assert_eq!(section(page, "## Two")?, "c\n");
    assert!(section(page, "## Three").is_err());
    Ok(())
}
