//! The tokens as configured: which settings and which file give them, and which role each has.
//!
//! Fails closed: a file or a value that cannot be made out is a fault and never the same as none. Everything is
//! bounded, and no fault shows a token.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::contract::{TOKEN_BYTES_MIN, TOKEN_FILE_BYTES_MAX, TOKENS_MAX};

/// What a token lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read the metrics.
    Metrics,
    /// Read events, numbers and websites.
    Read,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Read, Self::Admin];

    /// The role as it stands before a token in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// A token as configured. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The token itself, for hashing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(hidden)")
    }
}

/// A token and its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it lets its holder do.
    pub role: Role,
    /// The token itself.
    pub secret: Secret,
}

impl Token {
    /// The token that a setting gives, or what is wrong with it.
    pub(super) fn of_setting(role: Role, text: &str) -> Result<Self, String> {
        let begins_with_role = text.split_once(':').is_some_and(|(name, _)| Role::find(name).is_some());
        if begins_with_role {
            return Err("a role is said in token_file only; metrics_token and read_token have theirs".into());
        }
        Ok(Self { role, secret: checked(text)? })
    }
}

/// Where the tokens come from: settings, which stay as they are, and a file, which may be read anew.
#[derive(Debug, Clone, Default)]
pub struct TokenSources {
    given: Vec<Token>,
    file: Option<PathBuf>,
}

impl TokenSources {
    pub(super) fn new(given: Vec<Token>, file: Option<PathBuf>) -> Self {
        Self { given, file }
    }

    /// The file of tokens.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file, if there is one, and puts its tokens beside those of the settings; or says all that is wrong.
    pub fn read(&self) -> Result<Vec<Token>, Vec<String>> {
        let mut tokens = Vec::new();
        let mut faults = Vec::new();
        for token in &self.given {
            if let Err(fault) = add(&mut tokens, token.clone()) {
                faults.push(fault);
            }
        }
        if let Some(file) = &self.file {
            let text = read_file(file).map_err(|fault| vec![fault])?;
            let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
            let mut is_empty = true;
            for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
                is_empty = false;
                if let Err(fault) = of_line(line).and_then(|token| add(&mut tokens, token)) {
                    faults.push(format!("line {number}: {fault}"));
                }
            }
            if is_empty {
                faults.push("the file holds no token; write one on each line".into());
            }
        }
        if tokens.len() > TOKENS_MAX {
            // Every one of them is compared with the token of a request.
            faults.push(format!("there are {} tokens, and {TOKENS_MAX} are the most", tokens.len()));
        }
        if faults.is_empty() { Ok(tokens) } else { Err(faults) }
    }
}

/// Reads the text of the file, as much as a file of tokens may have.
fn read_file(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error: io::Error| format!("the file cannot be read: {error}"))?;
    if bytes.len() as u64 > TOKEN_FILE_BYTES_MAX {
        return Err(format!("the file cannot be read: it has more than {TOKEN_FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "the file cannot be read: it is not text in UTF-8".to_owned())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Reads a line: `role:token`, or a token alone, which is an admin's.
fn of_line(line: &str) -> Result<Token, String> {
    let Some((name, token)) = line.split_once(':') else {
        return Ok(Token { role: Role::Admin, secret: checked(line)? });
    };
    // What stands there may be part of a token, so it is not shown.
    let role = Role::find(name.trim_end()).ok_or(
        "what stands before the colon is no role: metrics, read and admin are; before a token with a colon in it \
         write the role, too",
    )?;
    Ok(Token { role, secret: checked(token.trim_start())? })
}

/// Adds a token, unless it is there already. In another role it is a fault: nobody could say what it is to reach.
fn add(tokens: &mut Vec<Token>, token: Token) -> Result<(), String> {
    match tokens.iter().find(|known| known.secret == token.secret) {
        None => tokens.push(token),
        Some(known) if known.role == token.role => {}
        Some(known) => {
            return Err(format!(
                "the same token is given for the role {} and for the role {}; each role needs its own",
                known.role.as_str(),
                token.role.as_str()
            ));
        }
    }
    Ok(())
}

fn checked(text: &str) -> Result<Secret, String> {
    const QUOTES: [char; 2] = ['"', '\''];
    if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
        return Err("a quote is part of the token; take it away".into());
    }
    if text.len() < TOKEN_BYTES_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "expected {TOKEN_BYTES_MIN} bytes or more of ASCII without spaces; `openssl rand -hex 32` makes a good one"
        ));
    }
    Ok(Secret(text.to_owned()))
}
