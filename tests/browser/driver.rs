//! A real Chromium, told what to do as W3C's WebDriver has it. chromedriver speaks plain HTTP with JSON, so the
//! harness's client is all that this needs; what WebDriver has no word for goes through to the DevTools protocol.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::{Client, work_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Every name of `.example` is this machine: pages that are not on localhost, and no secure contexts by http.
const FLAGS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    // What tells pages that a robot is at work; a test says so by the DevTools protocol.
    "--disable-blink-features=AutomationControlled",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--ignore-certificate-errors",
];

/// How long a page may take to become what a test waits for.
const WAIT_MAX: Duration = Duration::from_secs(60);
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    address: String,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// `None`, and it says so, where Chromium is not installed; where CI is set that is a failure.
    pub fn start() -> Option<Self> {
        Self::start_with(json!({}))
    }

    /// Starts one with more of `goog:chromeOptions`.
    pub fn start_with(options: Value) -> Option<Self> {
        if let Err(missing) = find_chromium() {
            skip(&missing);
            return None;
        }
        let profile = work_dir();
        let (driver, port) = start_driver();
        let mut flags: Vec<_> = FLAGS.map(str::to_owned).into();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let mut chrome = json!({"args": flags, "excludeSwitches": ["enable-automation"]});
        for (name, value) in options.as_object().unwrap() {
            chrome[name] = value.clone();
        }
        let performance = if options.get("perfLoggingPrefs").is_some() { "ALL" } else { "OFF" };
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL", "performance": performance},
            "goog:chromeOptions": chrome,
        }}});
        let mut browser =
            Self { driver, address: format!("127.0.0.1:{port}"), session: String::new(), _profile: profile };
        let started = browser.ask("POST", "/session", &capabilities).unwrap();
        browser.session = started["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    /// What WebDriver answers; fails with its error.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let response =
            Client::connect(&self.address).send(method, path, &[("content-type", "application/json")], body.as_bytes());
        let value = response.json()["value"].clone();
        if response.status == 200 { Ok(value) } else { Err(value.to_string()) }
    }

    fn try_call(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        self.ask(method, &format!("/session/{}{path}", self.session), &body)
    }

    fn call(&self, method: &str, path: &str, body: Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Loads a page, to its load event.
    pub fn go(&self, url: &str) {
        self.call("POST", "/url", json!({ "url": url }));
    }

    pub fn back(&self) {
        self.call("POST", "/back", json!({}));
    }

    /// Runs the body of a function in the page.
    pub fn run(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true in the page.
    pub fn wait_for(&self, expression: &str) {
        let started = Instant::now();
        let script = format!("return Boolean({expression})");
        // A page that is being left has no answer.
        while self.try_call("POST", "/execute/sync", json!({"script": script, "args": []})) != Ok(json!(true)) {
            assert!(started.elapsed() < WAIT_MAX, "waited too long for {expression}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A command of the DevTools protocol, to the tab that is spoken with.
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.call("POST", "/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// Has a script run in every page of this tab before any of its own.
    pub fn before_pages(&self, script: &str) -> String {
        let added = self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
        added["identifier"].as_str().unwrap().to_owned()
    }

    /// Not any more.
    pub fn no_more_before_pages(&self, script: &str) {
        self.devtools("Page.removeScriptToEvaluateOnNewDocument", json!({ "identifier": script }));
    }

    /// Presses and lets go a button (0 left, 1 middle, 2 right) over an element.
    pub fn click(&self, selector: &str, button: u32) {
        let found = self.call("POST", "/element", json!({"using": "css selector", "value": selector}));
        let origin = json!({ ELEMENT: found[ELEMENT] });
        let actions = json!([
            {"type": "pointerMove", "duration": 0, "origin": origin, "x": 0, "y": 0},
            {"type": "pointerDown", "button": button},
            {"type": "pointerUp", "button": button},
        ]);
        self.call("POST", "/actions", json!({"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]}));
    }

    /// Opens a tab in the foreground and speaks with it; returns its handle.
    pub fn open_tab(&self) -> String {
        let tab = self.call("POST", "/window/new", json!({"type": "tab"}));
        let handle = tab["handle"].as_str().unwrap().to_owned();
        self.speak_with(&handle);
        handle
    }

    pub fn tab(&self) -> String {
        self.call("GET", "/window", json!({})).as_str().unwrap().to_owned()
    }

    pub fn tabs(&self) -> Vec<String> {
        let handles = self.call("GET", "/window/handles", json!({}));
        handles.as_array().unwrap().iter().map(|handle| handle.as_str().unwrap().to_owned()).collect()
    }

    pub fn speak_with(&self, tab: &str) {
        self.call("POST", "/window", json!({ "handle": tab }));
    }

    /// Shows a tab, which hides the others.
    pub fn show(&self, tab: &str) {
        self.devtools("Target.activateTarget", json!({ "targetId": tab }));
    }

    /// Closes the tab that is spoken with.
    pub fn close_tab(&self) {
        self.call("DELETE", "/window", json!({}));
    }

    /// What pages have written to the console, and the browser about them, since this was asked last.
    pub fn console(&self) -> Vec<String> {
        self.log("browser")
    }

    pub fn log(&self, kind: &str) -> Vec<String> {
        let entries = self.call("POST", "/se/log", json!({ "type": kind }));
        entries.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; chromedriver does not.
        if !self.session.is_empty() {
            let _ = self.try_call("DELETE", "", json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Says that a test was not run, to whom it may concern; where CI is set every test must.
pub fn skip(missing: &str) {
    assert!(env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{missing}");
    // Not by a macro, whose words nobody sees of a test that passes.
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {missing}");
}

fn find_chromium() -> Result<(), String> {
    for program in ["chromium", "chromedriver"] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("there is no {program}: apt-get install chromium chromium-driver"));
        }
    }
    Ok(())
}

/// A chromedriver and its port. One that cannot have the port that it has looked up ends without a word about it.
fn start_driver() -> (Child, u16) {
    for _ in 0..10 {
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        if let Some(port) = port_of(&mut driver) {
            return (driver, port);
        }
        let _ = driver.kill();
        driver.wait().unwrap();
    }
    panic!("chromedriver does not say its port");
}

/// The port that chromedriver has taken, as it says it; `None` if it ends without saying one.
fn port_of(driver: &mut Child) -> Option<u16> {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let port = line.split_once("started successfully on port ")?.1.trim_end_matches('.').to_owned();
        port.parse().ok()
    });
    // Read on, or a full pipe would hold it up.
    thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    port
}
