//! Words that must not get out: secrets, and what a project writes and reads, looked for in what a system leaves behind.
//!
//! A word is found as it stands and in the forms in which programs print bytes that they did not mean to print: hexadecimal,
//! lists of numbers, base64, alone or inside of more.

use anyhow::Context;
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use regex::bytes::Regex;
use std::path::Path;

/// Places of one search that are told.
const TOLD_MAX: usize = 20;

/// Words to look for, each with the name of what it is.
#[derive(Debug, Clone, Default)]
pub struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    /// A new word that stands for this.
    pub fn plant(&mut self, what: &'static str) -> String {
        let word = format!("canary-{}-{:032x}", what.replace([' ', '\''], "-"), fastrand::u128(..));
        self.add(what, &word);
        word
    }

    /// Looks for this word too.
    pub fn add(&mut self, what: &'static str, word: &str) {
        let known = self.0.iter().any(|(_, known)| known == word);
        // What is shorter is found by chance.
        self.0.extend((!known && word.len() >= 8).then(|| (what, word.to_owned())));
    }

    /// Those that stand for none of these.
    #[must_use]
    pub fn but(&self, whats: &[&str]) -> Self {
        Self(self.0.iter().filter(|(what, _)| !whats.contains(what)).cloned().collect())
    }

    /// Ready to search.
    ///
    /// # Panics
    /// The words make no expression.
    #[must_use]
    pub fn net(&self) -> Net {
        let forms: Vec<(&str, String)> =
            self.0.iter().flat_map(|(what, word)| forms(word).map(move |form| (*what, form))).collect();
        let any: Vec<String> = forms.iter().map(|(_, form)| regex::escape(form)).collect();
        let any = (!any.is_empty()).then(|| any.join("|"));
        Net { any: any.map(|any| Regex::new(&any).expect("escaped words are an expression")), forms }
    }
}

/// What finds the words.
#[derive(Debug)]
pub struct Net {
    any: Option<Regex>,
    forms: Vec<(&'static str, String)>,
}

impl Net {
    /// The places where the words are: `<place>:<line>: <what>`. What is never shown is the word.
    #[must_use]
    pub fn found_in(&self, place: &str, text: &[u8]) -> Vec<String> {
        let (mut found, mut line, mut at) = (Vec::new(), 1, 0);
        for hit in self.any.iter().flat_map(|any| any.find_iter(text)).take(TOLD_MAX) {
            line += text[at..hit.start()].iter().filter(|byte| **byte == b'\n').count();
            at = hit.start();
            let what = self.forms.iter().find(|(_, form)| form.as_bytes() == hit.as_bytes());
            found.push(format!("{place}:{line}: {}", what.map_or("?", |(what, _)| what)));
        }
        found.dedup();
        found
    }

    /// [`found_in`](Self::found_in) every file below a folder.
    ///
    /// # Errors
    /// A file is not readable.
    pub fn found_below(&self, folder: &Path) -> anyhow::Result<Vec<String>> {
        let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
                    found.extend(self.found_in(&path.display().to_string(), &text));
                }
            }
        }
        Ok(found)
    }
}

/// The ways in which a word may be printed.
fn forms(word: &str) -> impl Iterator<Item = String> {
    let listed = |between: &str| {
        let bytes: Vec<String> = word.bytes().map(|byte| byte.to_string()).collect();
        bytes.join(between)
    };
    let lower: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
    let upper = lower.to_uppercase();
    let plain = [word.to_owned(), listed(", "), listed(","), lower, upper];
    let encoded = [STANDARD, URL_SAFE].into_iter().flat_map(|alphabet| {
        let engine = GeneralPurpose::new(&alphabet, NO_PAD);
        (0..3).map(move |before| (engine.clone(), before))
    });
    let encoded: Vec<String> = encoded.map(|(engine, before)| inside(&engine, word, before)).collect();
    plain.into_iter().chain(encoded)
}

/// What base64 makes of a word after so many other bytes: the letters that are the word's alone.
fn inside(engine: &GeneralPurpose, word: &str, before: usize) -> String {
    let text = engine.encode([&[0; 2][..before], word.as_bytes()].concat());
    let (first, last) = ((before * 8).div_ceil(6), (before + word.len()) * 8 / 6);
    text[first..last].to_owned()
}
