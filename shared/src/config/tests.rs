//! The layers together.

use super::*;
use std::{collections::BTreeMap, path::Path};

fn gather(flags: &Flags, env: &[(&str, &str)], file: &str) -> Result<Settings, Error> {
    let path = std::env::temp_dir().join(format!("longhaul-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&path, file).expect("a file in the temporary folder");
    let env: BTreeMap<_, _> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = Flags { file: Some(path.clone()), ..flags.clone() };
    let settings = Settings::from_parts(&flags, &env, Path::new("/"));
    std::fs::remove_file(path).expect("the file is there");
    settings
}

fn refusal(env: &[(&str, &str)], file: &str) -> String {
    let settings = gather(&Flags::default(), env, file);
    settings.and_then(|settings| settings.config()).expect_err("a refusal").to_string()
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "[worker]\nslots = 2\nshards = 2\ngrace = \"5s\"\n";
    let env = [("LONGHAUL_WORKER__SLOTS", "3"), ("LONGHAUL_WORKER__SHARDS", "3"), ("LONGHAUL_API_KEY", "")];
    let flags = Flags::default().with("worker.slots", "--slots", Some("4".to_owned()));
    let settings = gather(&flags, &env, file).expect("settings");
    let config = settings.config().expect("a configuration");
    assert_eq!((config.worker.slots, config.worker.shards, config.worker.grace.as_secs()), (4, 3, 5));
    assert_eq!(config.api.key, None, "an empty variable counts as unset");
    assert_eq!(settings.origin("worker.slots").to_string(), "flag --slots");
    assert_eq!(settings.origin("worker.shards").to_string(), "env LONGHAUL_WORKER__SHARDS");
    assert!(settings.origin("worker.grace").to_string().ends_with(".toml:4"));
    assert_eq!(settings.origin("worker.queues"), &Origin::Default);
}

#[test]
fn unknown_names_are_refused_with_a_suggestion() {
    assert!(refusal(&[], "[worker]\nslot = 2").contains("unknown setting worker.slot"));
    assert!(refusal(&[], "[worker]\nslot = 2").ends_with("did you mean worker.slots?"));
    let wrong = refusal(&[("LONGHAUL_WORKER_SLOTS", "2")], "");
    assert!(wrong.ends_with("did you mean LONGHAUL_WORKER__SLOTS?"), "{wrong}");
    assert!(refusal(&[], "[[upstreams]]\nname = \"a\"\nuri = \"b\"").contains("unknown field `uri`"));
    let links = [("LONGHAUL_API_PORT", "tcp://10.0.0.1:80"), ("LONGHAUL_API_SERVICE_HOST", "10.0.0.1")];
    assert!(gather(&Flags::default(), &links, "").is_ok(), "what Kubernetes sets is no setting");
}

#[test]
fn values_outside_their_limits_are_refused_by_name() {
    let short = refusal(&[("LONGHAUL_LEASE__TTL", "5s")], "");
    assert_eq!(
        short,
        "lease.ttl is \"5s\" (env LONGHAUL_LEASE__TTL): expected at least 3 × lease.heartbeat = 6s"
    );
    assert!(refusal(&[], "[worker]\nqueues = [\"fast\"]").contains("fast is no queue"));
    assert!(refusal(&[], "[[routes]]\nmodel = \"m\"\nupstreams = [\"x\"]").contains("names upstream x"));
    let inner = "[[routes]]\nmodel = \"a*b\"\nupstreams = [\"x\"]";
    assert!(refusal(&[], inner).contains("a * may only be the last character"));
    assert!(refusal(&[], "[worker]\nslots = 0").contains("expected a whole number from 1 to 100000"));
    assert!(refusal(&[("DATABASE_URL", "postgres://h/d")], "").contains("REDIS_URL"));
    let two = [("DATABASE_URL", "postgres://h/d"), ("REDIS_URL", "redis://h")];
    let wide = "[queue]\ntransport = \"apalis\"\nwindow = 4001";
    assert!(refusal(&two, wide).ends_with("expected at most 4000 with queue.transport = \"apalis\""));
    assert!(gather(&Flags::default(), &[], wide).and_then(|settings| settings.config()).is_ok(), "no part");
    let unknown = refusal(&[("LONGHAUL_QUEUE__TRANSPORT", "streams")], "");
    assert!(unknown.ends_with("expected \"sorted\" or \"apalis\""), "{unknown}");
    assert!(refusal(&[("LONGHAUL_UPSTREAM", "localhost:1")], "").contains("no base URL"));
}

#[test]
fn queues_that_are_configured_are_served_heaviest_first() {
    let file = "[[queues]]\nname = \"slow\"\nweight = 1\n[[queues]]\nname = \"fast\"\nweight = 9\n";
    let config =
        gather(&Flags::default(), &[], file).and_then(|settings| settings.config()).expect("a configuration");
    let names: Vec<_> = config.worker.queues.iter().map(crate::task::QueueName::as_str).collect();
    assert_eq!(names, ["fast", "slow"]);
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let path = std::env::temp_dir().join(format!("longhaul-{}", uuid::Uuid::now_v7()));
    std::fs::write(&path, "lh_hush\n").expect("a file in the temporary folder");
    let path = path.to_str().expect("a readable path");
    let file = format!("[[upstreams]]\nname = \"a\"\nurl = \"http://h:1/v1/\"\nkey_file = \"{path}\"\n");
    let env = [
        ("LONGHAUL_API_KEY_FILE", path),
        ("DATABASE_URL", "postgres://u:hush@h/d"),
        ("REDIS_URL", "redis://:hush@h"),
    ];
    let settings = gather(&Flags::default(), &env, &file).expect("settings");
    let config = settings.config().expect("a configuration");
    assert_eq!(config.api.key.as_ref().map(Secret::expose), Some("lh_hush"));
    assert_eq!(config.upstreams[0].key.as_ref().map(Secret::expose), Some("lh_hush"));
    assert_eq!(config.upstreams[0].url, "http://h:1");
    let shown = show(&settings, &config, true);
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("api.key = \"***\"  # env LONGHAUL_API_KEY_FILE"), "{shown}");
    let both = [("LONGHAUL_API_KEY_FILE", path), ("LONGHAUL_API_KEY", "x")];
    assert!(gather(&Flags::default(), &both, "").is_err());
    std::fs::remove_file(path).expect("the file is there");
}

#[test]
fn what_is_shown_can_be_read_back() {
    let settings =
        gather(&Flags::default(), &[("LONGHAUL_UPSTREAM", "http://a,http://b/v1")], "").expect("settings");
    let config = settings.config().expect("a configuration");
    let shown = show(&settings, &config, false);
    let again = gather(&Flags::default(), &[], &shown).and_then(|again| again.config()).expect(&shown);
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
    assert_eq!(config.upstreams[1].name, "default-2");
}
