//! Commands of hitlog's that people are told to run: whole, and quoted for a shell, so that they can be copied into
//! one.
//!
//! A command that leaves out where the data are, or how they are kept, does its work somewhere else or in another way.
//! So each is told with the data directory, the file of settings and the other settings that this process was given,
//! as far as that command takes them, and with paths that are found from anywhere. A process has one command line, and
//! so it is kept here once, before anything is told. Tokens are left out, which is said: messages go to logs. Knows
//! nobody.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{self, Path},
    sync::OnceLock,
};

/// What this process was started with.
#[derive(Debug, Default)]
pub struct Given {
    /// The directory that it works on.
    pub data_dir: OsString,
    /// The file of settings, if one was named that is there for another command, too.
    pub config: Option<OsString>,
    /// The other settings that another command would not find as they are.
    pub settings: Vec<GivenSetting>,
    /// The flags of settings that another command would not find either, and that are not told.
    pub untold: Vec<String>,
}

/// A setting that was given.
#[derive(Debug)]
pub struct GivenSetting {
    /// Its flag, without dashes.
    pub flag: String,
    /// Its value.
    pub value: OsString,
    /// Whether that is a path.
    pub is_path: bool,
}

/// The name of each command, and the flags that it takes, without dashes.
pub type Flags = Vec<(String, Vec<String>)>;

static GIVEN: OnceLock<Given> = OnceLock::new();
static FLAGS: OnceLock<Flags> = OnceLock::new();

/// Keeps what this process was started with. Only the first call counts.
pub fn keep(given: Given) {
    let _ = GIVEN.set(given);
}

/// Keeps what every command takes. Only the first call counts.
pub fn keep_flags(flags: Flags) {
    let _ = FLAGS.set(flags);
}

/// A command to run on the data directory of this process; the words are those after `hitlog`.
pub fn hitlog<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> String {
    told(words, GIVEN.get(), FLAGS.get(), None)
}

/// A command to run on another data directory.
pub fn hitlog_on<W: AsRef<OsStr>>(data_dir: &Path, words: impl IntoIterator<Item = W>) -> String {
    told(words, GIVEN.get(), FLAGS.get(), Some(data_dir))
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

/// Whether a setting can have this value: text in UTF-8 without control characters, and without spaces around it.
pub fn is_setting(value: impl AsRef<OsStr>) -> bool {
    value.as_ref().to_str().is_some_and(|text| !text.contains(char::is_control) && text.trim() == text)
}

/// Most links that are followed from a path, as many as Linux follows.
const LINKS_MAX: usize = 40;

/// Whether a path, such as `/dev/stdin`, leads to a descriptor: another command finds something else there.
pub fn is_descriptor(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(folder) = fs::canonicalize(folder) else { return false };
        if folder.starts_with("/proc") && folder.file_name().is_some_and(|name| name == "fd") {
            return true;
        }
        // One at a time: the links of a descriptor lead on to the file that it has open.
        let Ok(link) = fs::read_link(&path) else { return false };
        path = folder.join(link);
    }
    false
}

/// Values of flags that are paths.
#[derive(Default)]
struct Paths {
    /// Whether one of them is found only from the folder that this process runs in.
    is_from_here: bool,
}

impl Paths {
    /// A path as it is found from anywhere; or as it was given, if no flag takes the other, because the folder that
    /// this process runs in has such a name.
    fn value(&mut self, path: &OsStr, is_taken: impl Fn(&OsStr) -> bool) -> OsString {
        let found = absolute(path);
        if Path::new(&found).is_absolute() && is_taken(&found) {
            return found;
        }
        self.is_from_here |= Path::new(path).is_relative();
        path.to_owned()
    }
}

fn told<W: AsRef<OsStr>>(
    words: impl IntoIterator<Item = W>,
    given: Option<&Given>,
    flags: Option<&Flags>,
    data_dir: Option<&Path>,
) -> String {
    let mut parts: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    let (mut paths, mut untold) = (Paths::default(), Vec::new());
    let name = parts.first().cloned().unwrap_or_default();
    let taken = flags.into_iter().flatten().find(|(command, _)| name == **command).map(|(_, taken)| taken);
    if let Some(given) = given {
        let takes = |flag: &String| taken.is_some_and(|taken| taken.contains(flag));
        untold.extend(given.untold.iter().filter(|flag| takes(flag)).map(|flag| format!("--{flag}")));
        for GivenSetting { flag: name, value, is_path } in given.settings.iter().filter(|of| takes(&of.flag)) {
            let found = is_path.then(|| paths.value(value, |path| is_setting(path)));
            parts.push(flag(name, found.as_ref().unwrap_or(value)));
        }
        // What is no text is no argument; but it is no value of a setting, and may be anything else.
        let is_text = |path: &OsStr| path.to_str().is_some();
        parts.extend(given.config.as_ref().map(|file| flag("config", paths.value(file, is_text))));
    }
    // What asks a running hitlog takes none.
    let given = given.filter(|_| taken.is_none_or(|taken| taken.iter().any(|flag| flag == "data-dir")));
    if let Some(data_dir) = data_dir.map(Path::as_os_str).or(given.map(|given| given.data_dir.as_os_str())) {
        parts.push(flag("data-dir", paths.value(data_dir, |path| is_setting(path))));
    }
    let quoted: Vec<_> = parts.iter().map(quote).collect();
    let command = format!("hitlog {}", quoted.join(" "));
    let mut remarks = Vec::new();
    let command = match env::current_dir() {
        _ if !paths.is_from_here => command,
        // In a shell of its own, so that it can stand behind a pipe, and whoever runs it stays where they are.
        Ok(folder) => format!("(cd {} && {command})", quote(folder)),
        Err(_) => {
            remarks.push("in the folder that this hitlog runs in".to_owned());
            command
        }
    };
    if !untold.is_empty() {
        remarks.push(format!("with {} again, which is not shown", untold.join(" and ")));
    }
    // What a shell takes for a comment, so that the whole can be copied.
    if remarks.is_empty() { command } else { format!("{command} # {}", remarks.join(", ")) }
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
                value("--data-dir=", data_dir.as_os_str()),
            ];
            assert_eq!(words, wanted, "{told}");
        }
    }

    fn setting(flag: &str, value: &str, is_path: bool) -> GivenSetting {
        GivenSetting { flag: flag.into(), value: value.into(), is_path }
    }

    #[test]
    fn a_command_goes_where_this_process_was_sent() {
        let given = Given {
            data_dir: "some dir".into(),
            config: Some("c.toml".into()),
            settings: vec![setting("durability", "normal", false), setting("scratch-dir", "scr", true)],
            untold: vec!["token".into(), "read-token".into()],
        };
        let takes = |name: &str, taken: &[&str]| (name.to_owned(), taken.iter().copied().map(str::to_owned).collect());
        let flags = vec![
            takes("check", &["data-dir"]),
            takes("import", &["data-dir", "durability", "scratch-dir", "skip"]),
            takes("serve", &["data-dir", "durability", "token", "read-token"]),
            takes("tail", &["read-token", "url"]),
        ];
        let here = env::current_dir().unwrap().display().to_string();
        let tell =
            |words: &[&str], to: Option<&Path>| told(words, Some(&given), Some(&flags), to).replace(&here, "HERE");
        for (words, to, wanted) in [
            (&["check"][..], None, "hitlog check --config=HERE/c.toml --data-dir='HERE/some dir'"),
            (
                &["import", "x"],
                None,
                "hitlog import x --durability=normal --scratch-dir=HERE/scr --config=HERE/c.toml \
                 --data-dir='HERE/some dir'",
            ),
            (
                &["serve"],
                Some(Path::new("/b")),
                "hitlog serve --durability=normal --config=HERE/c.toml --data-dir=/b # with --token and --read-token \
                 again, which is not shown",
            ),
            (
                &["tail", "--url=u"],
                None,
                "hitlog tail --url=u --config=HERE/c.toml # with --read-token again, which is not shown",
            ),
            (&["other"], Some(Path::new("/b")), "hitlog other --config=HERE/c.toml --data-dir=/b"),
        ] {
            assert_eq!(tell(words, to), wanted);
        }
        assert_eq!(told(["check"], None, None, None), "hitlog check");
    }

    #[test]
    fn a_value_that_no_setting_takes_is_none() {
        for (value, is_one) in
            [(&b"/a b"[..], true), (b"/a\nb", false), (b"/a ", false), (b"\xe9", false), ("/\u{e9}".as_bytes(), true)]
        {
            assert_eq!(is_setting(OsStr::from_bytes(value)), is_one, "{value:?}");
        }
    }
}
