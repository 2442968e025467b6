//! The pages under test: a server of files that a test makes up, beside hitlog and so of another origin.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    thread,
};

use harness::port::HeldPort;

/// What is answered to a request for a path.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    pub fn of(content_type: &str, body: impl Into<String>) -> Self {
        Self { status: 200, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    pub fn page(body: &str) -> Self {
        // High enough to scroll, and with a title for page views.
        let style = "<style>body{margin:0;height:3000px}a,button,svg{display:block;width:200px;height:40px}</style>";
        Self::of(
            "text/html; charset=utf-8",
            format!("<!doctype html><html><head><title>A page</title>{style}</head><body>{body}</body></html>"),
        )
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// What has come for a path: the head and the body.
pub type Asked = (String, String);

#[derive(Default)]
struct State {
    /// By path, the query left out. The first of several is answered once, the last always.
    answers: BTreeMap<String, Vec<Answer>>,
    asked: Vec<(String, Asked)>,
}

pub struct Site {
    port: HeldPort,
    state: Arc<Mutex<State>>,
}

impl Site {
    pub fn start() -> Self {
        let port = HeldPort::take();
        let listener = port.listen();
        let state = Arc::new(Mutex::new(State::default()));
        let of_thread = Arc::clone(&state);
        // It ends with the process: a browser may keep connections open for as long as it lives.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&of_thread);
                thread::spawn(move || serve(&state, stream));
            }
        });
        Self { port, state }
    }

    /// Where it is reached under a name.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port.number())
    }

    /// Answers requests for a path from now on.
    pub fn put(&self, path: &str, answer: Answer) {
        self.put_all(path, vec![answer]);
    }

    /// Answers the first request with the first of these, and so on; the last one is for all that come later.
    pub fn put_all(&self, path: &str, answers: Vec<Answer>) {
        self.state.lock().unwrap().answers.insert(path.into(), answers);
    }

    /// The requests for a path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|(of, _)| of == path).map(|(_, asked)| asked.clone()).collect()
    }
}

/// Answers one client after the other until it closes the connection.
fn serve(state: &Mutex<State>, stream: TcpStream) {
    let mut reader = BufReader::new(&stream);
    while let Some((path, asked)) = read(&mut reader) {
        let answer = {
            let mut state = state.lock().unwrap();
            state.asked.push((path.clone(), asked));
            match state.answers.get_mut(&path) {
                Some(answers) if answers.len() > 1 => answers.remove(0),
                Some(answers) => answers[0].clone(),
                None => Answer::of("text/plain", "nothing here").status(404),
            }
        };
        let mut text = format!("HTTP/1.1 {} Status\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in answer.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(&answer.body);
        if (&stream).write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// The path that is asked for without its query, and what comes with it.
fn read(reader: &mut BufReader<&TcpStream>) -> Option<(String, Asked)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1)?.split('?').next()?.to_owned();
    Some((path, (head, String::from_utf8_lossy(&body).into_owned())))
}
