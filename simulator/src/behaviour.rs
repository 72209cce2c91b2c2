//! How the simulated model behaves unless a request's `sim` object says otherwise. The same struct is the command line.

use clap::Args;

/// How the simulated model behaves; every field can be overridden per request by the body's `sim` object.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Behaviour {
    /// Milliseconds from the request to the first token.
    #[arg(long, value_name = "MS", default_value_t = Behaviour::default().ttft_ms)]
    pub ttft_ms: u64,

    /// Milliseconds between two tokens.
    #[arg(long, value_name = "MS", default_value_t = Behaviour::default().itl_ms)]
    pub itl_ms: u64,

    /// Tokens of an answer, give or take the jitter.
    #[arg(long, value_name = "N", default_value_t = Behaviour::default().tokens,
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TOKENS)))]
    pub tokens: u32,

    /// Relative spread of times and lengths, 0 to 1; drawn from the prompt, so that a request always repeats.
    #[arg(long, value_name = "0..1", default_value_t = Behaviour::default().jitter, value_parser = jitter)]
    pub jitter: f64,

    /// Requests served at full speed; beyond them everything slows by the load factor. 0 is unlimited.
    #[arg(long, value_name = "N", default_value_t = Behaviour::default().max_concurrency)]
    pub max_concurrency: usize,
}

/// The longest answer anybody may ask for.
pub(crate) const MAX_TOKENS: u32 = 1_000_000;

impl Default for Behaviour {
    fn default() -> Self {
        Self { ttft_ms: 200, itl_ms: 20, tokens: 32, jitter: 0.1, max_concurrency: 0 }
    }
}

impl Behaviour {
    /// A model that answers at once: for tests and load generators.
    #[must_use]
    pub fn instant() -> Self {
        Self { ttft_ms: 0, itl_ms: 0, jitter: 0.0, ..Self::default() }
    }

    /// How much slower everything is with `running` requests at a time.
    pub(crate) fn load_factor(&self, running: usize) -> f64 {
        match self.max_concurrency {
            0 => 1.0,
            limit => (running as f64 / limit as f64).max(1.0),
        }
    }
}

fn jitter(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number between 0 and 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_slows_only_beyond_the_limit() {
        let limited = Behaviour { max_concurrency: 4, ..Behaviour::default() };
        assert_eq!(limited.load_factor(3), 1.0);
        assert_eq!(limited.load_factor(10), 2.5);
        assert_eq!(Behaviour::default().load_factor(10_000), 1.0);
    }
}
