//! Settings that are wrong where secrets are: the complaint names the setting and not its value.

use harness::{Canaries, output};
use std::{fs, path::Path};

/// A command, its environment, and the text of its configuration file.
type Case = (&'static [&'static str], Vec<(&'static str, String)>, Option<String>);

const SHOW: &[&str] = &["config", "show", "--origin"];

fn in_environment(word: &str) -> Vec<Case> {
    let url = |scheme: &str| format!("{scheme}://user:{word}@127.0.0.1:1/x");
    let both = |database: String, redis: String| vec![("DATABASE_URL", database), ("REDIS_URL", redis)];
    let good = || both(url("postgres"), url("redis"));
    let one = |name, value: String| vec![(name, value)];
    vec![
        (SHOW, good(), None),
        (&["api"], good(), None),
        (&["worker", "--upstream", "http://127.0.0.1:1"], good(), None),
        (&["migrate"], good(), None),
        (&["keys", "list"], good(), None),
        (SHOW, both(url("mysql"), url("redis")), None),
        (SHOW, both(url("postgres"), url("http")), None),
        (SHOW, both(word.to_owned(), word.to_owned()), None),
        (&["api"], both(format!("postgres://user:{word}@h:port/x"), url("redis")), None),
        (&["api"], both(format!("postgres://user:{word}@[/x"), url("redis")), None),
        (&["api"], both(format!("postgres://{word}"), format!("redis://{word}")), None),
        (&["api"], both(format!("postgres://user@127.0.0.1:1/x?passwort={word}"), url("redis")), None),
        (SHOW, one("DATABASE_URL_FILE", url("postgres")), None),
        (SHOW, one("LONGHAUL_API_KEY_FILE", word.to_owned()), None),
        (SHOW, vec![("LONGHAUL_API_KEY", word.to_owned()), ("LONGHAUL_API_KEY_FILE", word.to_owned())], None),
        (SHOW, one("LONGHAUL_UPSTREAM", url("http")), None),
        (SHOW, one("LONGHAUL_UPSTREAM", format!("{word}://x")), None),
        (
            SHOW,
            vec![
                ("LONGHAUL_UPSTREAM", "http://127.0.0.1:1".to_owned()),
                ("LONGHAUL_UPSTREAM_KEY", word.to_owned()),
            ],
            None,
        ),
        (
            SHOW,
            vec![
                ("LONGHAUL_JWT__ISSUER", "x".to_owned()),
                ("LONGHAUL_JWT__AUDIENCE", "x".to_owned()),
                ("LONGHAUL_JWT__JWKS", url("https")),
            ],
            None,
        ),
        (SHOW, one("LONGHAUL_JWT__JWKS", url("ftp")), None),
        (SHOW, one("LONGHAUL_OBJECTS__URL", url("s3")), None),
        (&["serve", "--listen", "127.0.0.1:0"], one("LONGHAUL_OBJECTS__URL", url("s9")), None),
        (SHOW, one("LONGHAUL_API_KEEY", word.to_owned()), None),
        (
            &["tasks", "list", "--server", "http://127.0.0.1:1"],
            one("LONGHAUL_API_KEY", word.to_owned()),
            None,
        ),
        (&["tasks", "list"], one("LONGHAUL_SERVER", url("http")), None),
        (&["tasks", "list"], one("LONGHAUL_SERVER", url("ftp")), None),
    ]
}

fn in_file(word: &str) -> Vec<Case> {
    let upstream =
        |key: &str| format!("[[upstreams]]\nname = \"gpu\"\nurl = \"http://127.0.0.1:1\"\n{key}\n");
    let files = [
        upstream(&format!("key = \"{word}\"")),
        upstream(&format!("key = [\"{word}\"]")),
        upstream(&format!("key = \"{word}")),
        upstream(&format!("key = {word}")),
        upstream(&format!("keey = \"{word}\"")),
        upstream(&format!("key_env = \"{word}\"")),
        upstream(&format!("key_file = \"{word}\"")),
        upstream(&format!("key = \"{word}\"\nkey = \"{word}\"")),
        upstream(&format!("key = \"{word}\"\nendpoints = \"x\"")),
        format!("upstreams = \"{word}\""),
        format!("upstreams = [\"{word}\"]"),
        format!("[api]\nkey = \"{word}"),
        format!("[api]\nkey = [\"{word}\"]"),
        format!("[api]\nkeey = \"{word}\""),
        format!("[database]\nurl = \"{word}\""),
        format!("[database]\nurl = [\"{word}\"]"),
        format!("api = \"{word}\""),
    ];
    files.into_iter().map(|file| (SHOW, Vec::new(), Some(file))).collect()
}

async fn run(case: Case, folder: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    let (args, mut env, file) = case;
    let what = format!("{args:?} {env:?} {file:?}");
    if let Some(text) = file {
        let path = folder.join(format!("{:016x}.toml", fastrand::u64(..)));
        fs::write(&path, text)?;
        env.push(("LONGHAUL_CONFIG", path.display().to_string()));
    }
    if args[0] == "serve" {
        env.push(("LONGHAUL_DATA_DIR", folder.join("data").display().to_string()));
    }
    env.push(("LONGHAUL_LOG", "trace".to_owned()));
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let said = output(args, &env).await?;
    Ok((what, [said.stdout, said.stderr].concat()))
}

#[tokio::test]
async fn a_bad_setting_is_not_repeated() -> anyhow::Result<()> {
    let mut canaries = Canaries::default();
    let word = canaries.plant("setting");
    let folder = tempfile::tempdir()?;
    let cases: Vec<Case> = in_environment(&word).into_iter().chain(in_file(&word)).collect();
    let said =
        futures_util::future::try_join_all(cases.into_iter().map(|case| run(case, folder.path()))).await?;
    let (net, mut found) = (canaries.net(), Vec::new());
    for (what, text) in said {
        assert!(text.len() > 20, "{what}: nothing was said");
        let what = what.replace(&word, "WORD");
        found.extend(
            net.found_in(&what, &text)
                .into_iter()
                .map(|hit| format!("{hit}\n{}", String::from_utf8_lossy(&text).replace(&word, "WORD"))),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
