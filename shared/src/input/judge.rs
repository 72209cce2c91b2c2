//! The judge of a body: all rules at once, over texts that are not kept.

use super::{
    InputRule, Pattern, Refusal,
    output::{self, Fields},
    read::{self, At, Fault, Reader, Scalar, Text},
    refusal,
    words::fold,
};

/// Rules, and what they have seen so far.
pub(super) struct Judge<'r> {
    rules: &'r [&'r InputRule],
    fields: Fields,
    /// Some rule looks at texts.
    reads: bool,
    chars: u64,
    /// A maximum of output tokens is set.
    limited: bool,
    /// The rule that broke.
    broken: Option<&'r str>,
    texts: usize,
    /// All texts, one behind the other; only where there are patterns.
    all: Option<String>,
    unspoken: bool,
}

impl<'r> Judge<'r> {
    pub(super) fn new(rules: &'r [&'r InputRule], endpoint: &str) -> Self {
        Self {
            rules,
            fields: output::fields(endpoint),
            reads: rules.iter().any(|rule| rule.reads()),
            chars: 0,
            limited: false,
            broken: None,
            texts: 0,
            all: None,
            unspoken: false,
        }
    }

    /// Judges a body.
    ///
    /// # Errors
    /// What the first rule that does not allow it says, or what no rule can judge.
    pub(super) fn check(mut self, body: &[u8]) -> Result<(), Refusal> {
        if self.patterns().next().is_some() {
            // Memory that is only reserved costs nothing until something comes; without escapes the texts are no longer than the body.
            self.all = Some(String::with_capacity(body.len()));
        }
        let read = read::read(body, &mut self);
        read.map_err(|(field, what)| refusal(self.broken, field, &what))?;
        self.check_output()?;
        // A text alone was tried.
        if self.texts < 2 {
            return Ok(());
        }
        let Some(all) = self.all.take() else { return Ok(()) };
        self.deny(&all).map_err(|fault| refusal(self.broken, None, &fault.what))?;
        drop(all);
        if self.unspoken {
            // What stands between two parts of a text may be there only to part them.
            let mut spoken = Spoken(String::with_capacity(body.len()));
            read::read(body, &mut spoken).map_err(|(field, what)| refusal(None, field, &what))?;
            self.deny(&spoken.0).map_err(|fault| refusal(self.broken, None, &fault.what))?;
        }
        Ok(())
    }

    fn patterns(&self) -> impl Iterator<Item = (&'r InputRule, usize, &'r Pattern)> + use<'r> {
        self.rules
            .iter()
            .flat_map(|rule| (1..).zip(&rule.deny_patterns).map(|(place, pattern)| (*rule, place, pattern)))
    }

    /// Tries all patterns.
    fn deny(&mut self, text: &str) -> Result<(), Fault> {
        match self.patterns().find(|(_, _, pattern)| pattern.0.is_match(text)) {
            None => Ok(()),
            Some((rule, place, _)) => {
                self.broken = Some(&rule.name);
                Err(Fault {
                    at: At::Prompt,
                    what: format!("matches pattern {place} of those that are denied"),
                })
            }
        }
    }

    fn check_output(&self) -> Result<(), Refusal> {
        let limits = |rule: &&&InputRule| rule.output_tokens_max.is_some();
        match self.rules.iter().find(limits) {
            Some(rule) if !self.limited => {
                let most = rule.output_tokens_max.unwrap_or_default();
                let field = Some(format!("body.{}", self.fields.own[0]));
                Err(refusal(Some(&rule.name), field, &format!("must be set, to at most {most}")))
            }
            _ => Ok(()),
        }
    }

    /// What the first rule that does not allow this value of a member says.
    fn broken_by(&mut self, name: &str, value: Scalar) -> Option<String> {
        for rule in self.rules {
            self.broken = Some(&rule.name);
            let bound = rule.parameters.get(name).and_then(|bounds| bounds.broken_by(value));
            if bound.is_some() {
                return bound;
            }
            let fits = |most: u64| matches!(value, Scalar::Number(tokens) if tokens >= 0.0 && tokens.fract() == 0.0 && tokens <= most as f64);
            if let Some(most) = rule.output_tokens_max.filter(|most| self.fields.hold(name) && !fits(*most)) {
                return Some(format!("must be set, to at most {most}"));
            }
        }
        self.broken = None;
        None
    }
}

impl Reader for Judge<'_> {
    fn text(&mut self, Text { text, spoken }: Text<'_>) -> Result<(), Fault> {
        if !self.reads {
            return Ok(());
        }
        self.texts += 1;
        self.chars = self.chars.saturating_add(text.chars().count() as u64);
        for rule in self.rules {
            if let Some(most) = rule.prompt_chars_max.filter(|most| self.chars > *most) {
                self.broken = Some(&rule.name);
                let what = format!("must have at most {most} characters");
                return Err(Fault { at: At::Prompt, what });
            }
        }
        if let Some(all) = &mut self.all {
            all.push_str(text);
            self.unspoken |= !spoken;
            self.deny(text)?;
        }
        Ok(())
    }

    fn member(&mut self, name: &str, value: Scalar) -> Result<(), Fault> {
        self.limited |= self.fields.own.contains(&name);
        match self.broken_by(name, value) {
            Some(what) => Err(Fault { at: At::Member(name.to_owned()), what }),
            None => Ok(()),
        }
    }

    fn spelling(&self, name: &str, folded: &str) -> Option<&str> {
        let output = [self.fields.own, self.fields.foreign].into_iter().flatten().copied();
        let parameters = self.rules.iter().flat_map(|rule| rule.parameters.keys()).map(String::as_str);
        let mut known = ["model"].into_iter().chain(output).chain(parameters);
        known.find(|known| *known != name && fold(known) == *folded)
    }

    fn needs_text(&self) -> bool {
        self.reads
    }
}

/// Texts that a model reads as one.
struct Spoken(String);

impl Reader for Spoken {
    fn text(&mut self, Text { text, spoken }: Text<'_>) -> Result<(), Fault> {
        if spoken {
            self.0.push_str(text);
        }
        Ok(())
    }

    fn member(&mut self, _: &str, _: Scalar) -> Result<(), Fault> {
        Ok(())
    }

    fn spelling(&self, _: &str, _: &str) -> Option<&str> {
        None
    }

    fn needs_text(&self) -> bool {
        false
    }
}
