//! Which tasks are open for a claim, as lists for a statement. Pure.

use crate::{
    catalog::{LATEST, canonical, prefix, route},
    config::Config,
    store::{Open, UpstreamModels},
};

/// No model's name ends so: behind a prefix it stands for all models that nobody names.
const UNNAMED: &str = "\0";

/// The tasks of which the upstreams (by name) and the model `pass`. `apart` are models that may differ from the others of their lists.
pub(super) fn open_but(
    config: &Config,
    notes: &[UpstreamModels],
    apart: &[String],
    pass: impl Fn(&[&str], &str) -> bool,
) -> Open {
    let passes = |endpoint: &str, model: &str| {
        let upstreams = route(config, notes, endpoint, model);
        pass(&upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>(), model)
    };
    let names = names(config, notes, apart);
    let (mut prefixes, mut except) = (Vec::new(), Vec::new());
    for endpoint in config.endpoints() {
        let mut chain: Vec<(&str, bool)> = Vec::new();
        // What the longest prefix so far says; nothing is open that nobody speaks for.
        let said = |chain: &[(&str, bool)], model: &str| {
            let longest = chain.iter().rev().find(|(prefix, _)| model.starts_with(prefix));
            longest.is_some_and(|(_, passes)| *passes)
        };
        for prefix in &names.prefixes {
            let passes = passes(&endpoint, &format!("{prefix}{UNNAMED}"));
            if passes != said(&chain, prefix) {
                prefixes.push(format!("{endpoint} {prefix}"));
            }
            chain.push((prefix, passes));
        }
        let differ = names.whole.iter().filter(|model| passes(&endpoint, model) != said(&chain, model));
        except.extend(differ.map(|model| format!("{endpoint} {model}")));
    }
    Open::Only { prefixes, except }
}

/// Names that lists and routes may treat apart.
struct Names {
    /// Beginnings, the shorter ones first; the empty one is always there.
    prefixes: Vec<String>,
    whole: Vec<String>,
}

fn names(config: &Config, notes: &[UpstreamModels], apart: &[String]) -> Names {
    let listed = notes.iter().filter_map(|note| note.models.as_ref()).flatten();
    let routed = config.routes.iter().map(|route| &route.model);
    let mut names = Names { prefixes: vec![String::new()], whole: Vec::new() };
    for name in listed.chain(routed).chain(apart) {
        match prefix(name) {
            Some(prefix) => names.prefixes.push(prefix.to_owned()),
            None => {
                let name = canonical(name);
                names.whole.extend([name.to_owned(), format!("{name}{LATEST}")]);
            }
        }
    }
    names.prefixes.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    names.prefixes.dedup();
    names.whole.sort_unstable();
    names.whole.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Route, Upstream};

    fn config(routes: &[(&str, &[&str])]) -> Config {
        let mut config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        config.upstreams = ["a", "b"]
            .map(|name| Upstream {
                name: name.into(),
                url: "http://h:1".into(),
                key: None,
                endpoints: vec!["/e".into()],
                any_model: false,
            })
            .into();
        let route = |(model, upstreams): &(&str, &[&str])| Route {
            model: (*model).into(),
            upstreams: upstreams.iter().map(|name| (*name).into()).collect(),
        };
        config.routes = routes.iter().map(route).collect();
        config
    }

    fn note(upstream: &str, models: Option<&[&str]>) -> UpstreamModels {
        let models = models.map(|models| models.iter().map(|model| (*model).into()).collect());
        UpstreamModels { upstream: upstream.into(), models }
    }

    /// What is open while these upstreams, or models of them, are paused.
    fn without(config: &Config, notes: &[UpstreamModels], paused: &[(&str, &str)]) -> Open {
        let apart: Vec<String> = paused.iter().map(|(_, model)| (*model).to_owned()).collect();
        let apart: Vec<String> = apart.into_iter().filter(|model| !model.is_empty()).collect();
        open_but(config, notes, &apart, |upstreams, model| {
            let is_paused = |name: &&str| {
                paused.iter().any(|(up, of)| up == name && (of.is_empty() || *of == canonical(model)))
            };
            !upstreams.iter().all(is_paused)
        })
    }

    /// What a statement makes of it.
    fn is_open(open: &Open, model: &str) -> bool {
        let Open::Only { prefixes, except } = open else { panic!("never from here") };
        let key = format!("/e {model}");
        let odd = prefixes.iter().filter(|prefix| key.starts_with(prefix.as_str())).count() % 2 == 1;
        odd != except.contains(&key)
    }

    fn judge(open: &Open, yes: &[&str], no: &[&str]) {
        assert!(yes.iter().all(|model| is_open(open, model)), "{open:?} has not all of {yes:?}");
        assert!(!no.iter().any(|model| is_open(open, model)), "{open:?} has some of {no:?}");
    }

    #[test]
    fn the_only_upstream_takes_everything_with_it() {
        let mut config = config(&[]);
        config.upstreams.truncate(1);
        for notes in [vec![], vec![note("a", None)], vec![note("a", Some(&["m", "o/*"]))]] {
            assert!(without(&config, &notes, &[("a", "")]).is_nothing(), "{notes:?}");
        }
    }

    #[test]
    fn what_another_upstream_lists_goes_on() {
        let (config, notes) = (config(&[]), [note("a", None), note("b", Some(&["m", "n:latest", "o/*"]))]);
        let open = without(&config, &notes, &[("a", "")]);
        judge(&open, &["m", "m:latest", "n", "o/x"], &["x", "o", "n:8b"]);
        // The one without a list may serve anything.
        judge(&without(&config, &notes, &[("b", "")]), &["m", "n", "o/x", "x"], &[]);
    }

    #[test]
    fn routes_decide_for_their_models() {
        let config =
            config(&[("m", &["a"]), ("n", &["a", "b"]), ("*", &["b"]), ("o/*", &["a"]), ("o/p", &["b"])]);
        judge(
            &without(&config, &[], &[("a", "")]),
            &["n", "n:latest", "x", "o/p"],
            &["m", "m:latest", "o/x"],
        );
        judge(&without(&config, &[], &[("b", "")]), &["n", "m", "o/x"], &["x", "o/p"]);
    }

    #[test]
    fn a_paused_model_leaves_the_others_open() {
        let mut config = config(&[]);
        let notes = [note("a", Some(&["hot", "cool"])), note("b", None)];
        config.upstreams.truncate(1);
        judge(&without(&config, &notes[..1], &[("a", "hot")]), &["cool", "x"], &["hot", "hot:latest"]);
        // Nobody lists it.
        judge(&without(&config, &[note("a", None)], &[("a", "hot")]), &["cool"], &["hot", "hot:latest"]);
        judge(&without(&config, &[note("a", Some(&["o/*"]))], &[("a", "o/hot")]), &["o/x"], &["o/hot"]);
    }

    #[test]
    fn a_model_paused_at_one_upstream_is_open_by_another() {
        let (config, notes) = (config(&[]), [note("a", Some(&["hot"])), note("b", Some(&["hot"]))]);
        judge(&without(&config, &notes, &[("a", "hot")]), &["hot"], &[]);
        judge(&without(&config, &notes, &[("a", "hot"), ("b", "hot")]), &["x"], &["hot"]);
        judge(&without(&config, &notes, &[("a", "hot"), ("b", "")]), &["x"], &["hot"]);
    }
}
