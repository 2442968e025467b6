//! Commands of hitlog's that people are told to run: whole, and quoted for a shell, so that they can be copied into
//! one.
//!
//! A command that leaves out where the data are does its work somewhere else. So each is told with the data directory,
//! and the file of settings, that this process was given, by their absolute paths. A process has one command line, and
//! so it is kept here once, before anything is told. Tokens are left out: messages go to logs. Knows nobody.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{self, Path},
    sync::OnceLock,
};

/// What this process was started with.
#[derive(Debug, Default)]
pub struct Given {
    /// The command, such as `serve`.
    pub command: String,
    /// The directory that it works on.
    pub data_dir: OsString,
    /// The file of settings, if one was named.
    pub config: Option<OsString>,
    /// The other settings that were given as flags: the flag without its dashes, and the value.
    pub settings: Vec<(String, OsString)>,
}

static GIVEN: OnceLock<Given> = OnceLock::new();

/// Keeps what this process was started with. Only the first call counts.
pub fn keep(given: Given) {
    let _ = GIVEN.set(given);
}

/// A command to run on the data directory of this process; the words are those after `hitlog`.
pub fn hitlog<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> String {
    told(words, GIVEN.get(), None)
}

/// A command to run on another data directory.
pub fn hitlog_on<W: AsRef<OsStr>>(data_dir: &Path, words: impl IntoIterator<Item = W>) -> String {
    told(words, GIVEN.get(), Some(data_dir))
}

/// The command that tells what it would mean to give a segment up.
pub fn write_off(number: i64) -> String {
    hitlog(["segments", "write-off", &number.to_string()])
}

/// A flag with a value that may begin with a dash.
pub fn flag(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}

/// A path as it is found from anywhere; such a path never begins with a dash.
pub fn absolute(path: impl AsRef<Path>) -> OsString {
    let path = path.as_ref();
    path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string()
}

/// A path as the value of a setting: absolute, unless that is one that no setting takes, because the folder that this
/// process runs in has such a name. Then it is found from there only.
pub fn setting(path: impl AsRef<Path>) -> OsString {
    let found = absolute(&path);
    if is_setting(&found) { found } else { path.as_ref().as_os_str().to_owned() }
}

/// Whether a setting can have this value: text in UTF-8 without control characters.
pub fn is_setting(value: impl AsRef<OsStr>) -> bool {
    value.as_ref().to_str().is_some_and(|text| !text.contains(char::is_control))
}

fn told<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>, given: Option<&Given>, data_dir: Option<&Path>) -> String {
    let mut parts: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    if let Some(given) = given {
        // Another command may not know them; a start knows every setting.
        let knows = parts.first().is_some_and(|name| name == "serve" || *name == *given.command);
        let settings = given.settings.iter().filter(|_| knows);
        parts.extend(settings.map(|(name, value)| flag(name, value)));
        parts.extend(given.config.as_ref().map(|file| flag("config", setting(file))));
    }
    if let Some(data_dir) = data_dir.or(given.map(|given| Path::new(&given.data_dir))) {
        parts.push(flag("data-dir", setting(data_dir)));
    }
    let quoted: Vec<_> = parts.iter().map(quote).collect();
    format!("hitlog {}", quoted.join(" "))
}

/// A word as every POSIX shell reads it. The name of a flag stays as it is, so that people can read it.
pub fn quote(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().as_bytes();
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'-';
    let name = word.iter().take_while(|byte| is_name(byte)).count();
    let begin = if word.starts_with(b"--") && word.get(name) == Some(&b'=') { name + 1 } else { 0 };
    let mut quoted = String::from_utf8_lossy(&word[..begin]).into_owned();
    for chunk in word[begin..].utf8_chunks() {
        if !chunk.valid().is_empty() {
            // Fails on a zero only, which no argument and no path has.
            quoted.push_str(&shlex::try_quote(chunk.valid()).unwrap_or_default());
        }
        if !chunk.invalid().is_empty() {
            // Bytes that are no text, which neither a log nor every shell's quotes can carry.
            let escaped: String = chunk.invalid().iter().map(|byte| format!("\\{byte:03o}")).collect();
            quoted.push_str(&format!("\"$(printf '{escaped}')\""));
        }
    }
    if quoted.is_empty() { "''".into() } else { quoted }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The words as a shell passes them on.
    fn as_read(command: &str) -> Vec<Vec<u8>> {
        let script = format!("hitlog() {{ for word; do printf '%s\\0' \"$word\"; done; }}; {command}");
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        let mut words: Vec<_> = output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        assert_eq!(words.pop().as_deref(), Some(&[][..]));
        words
    }

    #[test]
    fn a_shell_reads_what_was_meant() {
        let names: [&[u8]; 14] = [
            b"plain",
            b"",
            b"two words",
            b" lead and trail ",
            b"it's",
            b"\"double\" and 'single'",
            b"$HOME `id` $(id) \\",
            b"-leading",
            b"line\nfeed\n",
            b"tab\tand * ? [a] {b,c} ~ # ! & ; | < > ( )",
            "gr\u{fc}\u{df}e \u{1f980}".as_bytes(),
            b"\xff\xfe",
            b"a b\xff'c\n\xe9",
            b"\n",
        ];
        for name in names {
            let name = OsStr::from_bytes(name);
            let data_dir = Path::new("/data").join(name);
            let told = hitlog_on(&data_dir, [OsString::from("import"), flag("website", name), name.to_owned()]);
            let words = as_read(&told);
            let value = |lead: &str, word: &OsStr| [lead.as_bytes(), word.as_bytes()].concat();
            let wanted = [
                b"import".to_vec(),
                value("--website=", name),
                name.as_bytes().to_vec(),
                value("--data-dir=", &absolute(&data_dir)),
            ];
            assert_eq!(words, wanted, "{told}");
        }
    }

    #[test]
    fn a_command_goes_where_this_process_was_sent() {
        let given = Given {
            command: "import".into(),
            data_dir: "some dir".into(),
            config: Some("c.toml".into()),
            settings: vec![("durability".into(), "normal".into())],
        };
        let here = std::env::current_dir().unwrap().display().to_string();
        let tell = |words: &[&str], to: Option<&Path>| told(words, Some(&given), to).replace(&here, "HERE");
        for (words, to, wanted) in [
            (&["check"][..], None, "hitlog check --config=HERE/c.toml --data-dir='HERE/some dir'"),
            (
                &["import", "x"],
                None,
                "hitlog import x --durability=normal --config=HERE/c.toml --data-dir='HERE/some dir'",
            ),
            (&["serve"], Some(Path::new("/b")), "hitlog serve --durability=normal --config=HERE/c.toml --data-dir=/b"),
        ] {
            assert_eq!(tell(words, to), wanted);
        }
        assert_eq!(told(["check"], None, None), "hitlog check");
    }
}
