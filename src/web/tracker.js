// hitlog's tracker: one tag, and every page view arrives once.
//
// This is the source. `scripts/tracker` makes of it what is served: tracker.min.js, and, of what stands between the
// two marks, the module tracker.mjs. There are 2,300 bytes for it, compressed, so what can be said shorter is.
(() => {
  // <tracker>
  const start = (option, base) => {
    // Taken now, so that who replaces it later neither breaks this nor has anything sent twice. Who has replaced it
    // before is obeyed: the header of a tracing script costs a preflight, which hitlog answers.
    const request = fetch;
    const QUEUE_EVENTS_MAX = 100;
    const REQUEST_EVENTS_MAX = 20;
    // In UTF-16, of which a unit is three bytes at the most: so no request has more than 48 KiB. All that is in flight
    // when a page is left may have 64 KiB.
    const REQUEST_LENGTH_MAX = 16e3;
    const EVENT_LENGTH_MAX = 15e3;
    const URL_LENGTH_MAX = 4096;
    const TRIES_MAX = 6;
    const SESSION_IDLE_MS = 18e5;
    const DELAY_MS = 2000;
    const FILES =
      /\.(7z|csv|dmg|docx?|exe|gz|mp[34]|msi|pdf|pkg|pptx?|rar|xlsx?|zip)$/i;

    const now = Date.now;
    const isOn = name => option(name) != 'off';
    // Without the fragment, unless it is a route, and with what `data-query` leaves of the query, in either. The
    // server takes no longer one, and the end is what a page can be known without.
    const kept = (option('query') || 'keep').split(/[\s,]+/);
    const clean = url => url.replace(/#(?!!?\/).*/, '').replace(/\?[^#]*/g, query =>
      query.replace(/[?&]([^=&]*)[^&]*/g, (part, name) =>
        kept == 'keep' || /^(utm_.*|ref|source)$/.test(name) || kept.includes(name) ? part : ''
      ).replace(/^&/, '?')
    ).slice(0, URL_LENGTH_MAX);
    // Reads without a value, removes with ''. Even to name a storage may throw, by a setting of the browser's.
    const store = (area, key, value) => {
      try {
        const storage = window[area + 'Storage'];
        if (value) storage['hitlog.' + key] = value;
        else if (value == '') delete storage['hitlog.' + key];
        return storage['hitlog.' + key];
      } catch (error) {}
    };

    const code = option('code') || option('tracking-code') || window.TRACKER_CODE;
    const api = new URL(option('api') || option('api-url') || window.TRACKER_API || '/api/v1/events', base) + '/batch';
    const ids = option('ids');
    // What becomes of who asks not to be tracked. A word that is none of the three is as `anonymous`.
    const asked = (
      (navigator.globalPrivacyControl ? option('gpc') || '1' : '') +
      (navigator.doNotTrack == 1 ? option('dnt') || '1' : '')
    ).replace(/ignore/g, '');
    const isStoring = /session|visitor/.test(ids) && !asked;

    const methods = window.PivotMetrics = window.hitlog = window.hitlog || {};
    // Nothing is sent by this tracker, or any more.
    let isSilent =
      /drop/.test(asked) ||
      navigator.webdriver ||
      (option('domains') && !option('domains').split(/[\s,]+/).includes(location.hostname)) ||
      (option('local') == null && /^$|^127\.|\blocalhost$|^\[::1]$/.test(location.hostname)) ||
      Math.random() * 100 >= (option('sample') || 100) ||
      // The same tag a second time.
      methods[code];
    methods[code] = 1;

    let queue = [];
    // What makes events wait: `pause` is the time after a failure, or something else while a request is under way.
    let timer, pause;
    let tries = 0;
    let lastUrl, isViewDue;
    // Of the first page view only.
    let status = option('status') || undefined;
    let referrer = clean(document.referrer);
    let shownSince, engagedMs, sentMs, scrollPct;

    // An unknown code, or none. What is wrong stays wrong.
    const refuse = () => {
      isSilent = 1;
      queue = [];
      console.warn('hitlog: NOT_FOUND', code);
    };

    // Takes an event in. Its bytes are those of every try, and by its id the server knows a repeat.
    const add = (eventType, properties = {}, referrer) => {
      if (isSilent || store('local', 'ignore')) return;
      // Not randomUUID, which pages of http: have not.
      const eventId = crypto.getRandomValues(new Uint32Array(4)).join('-');
      let sessionId = asked ? eventId : 'server';
      let visitorId = sessionId;
      if (isStoring) {
        const [id, seen] = (store('session', 'session') || '').split(',');
        const current = now() - seen < SESSION_IDLE_MS ? id : eventId;
        // Where nothing can be stored the server finds ids, as without the attribute.
        if (store('session', 'session', [current, now()])) {
          sessionId = visitorId = current;
          if (ids == 'visitor') visitorId = store('local', 'visitor', store('local', 'visitor') || eventId) || current;
        }
      }
      let event = {
        trackingCode: code,
        eventType,
        url: lastUrl || clean(location.href),
        referrer,
        sessionId,
        visitorId,
        eventId,
        timestamp: now(),
        properties: asked ? { name: properties.name } : properties
      };
      let text;
      try {
        if (window.hitlogBefore && !(event = window.hitlogBefore(event))) return;
        text = JSON.stringify(event);
        if (text.length > EVENT_LENGTH_MAX) throw 0;
      } catch (error) {
        // Too long, or it goes around in circles, or the page's function fails.
        event.properties = { name: properties.name };
        text = JSON.stringify(event);
      }
      // The newest is dropped: what came first has the page view, with the referrer, that the others belong to.
      if (queue.length < QUEUE_EVENTS_MAX && text.length < REQUEST_LENGTH_MAX) queue.push({ text });
      timer = timer || setTimeout(send, DELAY_MS);
    };

    // The origin's way to call it has the type of the event in place of a name.
    const track = (name, properties) => {
      if (name == 'pageview') view();
      else if (name == 'click' || name == 'custom') add(name, properties);
      else add('custom', { ...properties, name });
    };

    // The first events of a list that fit into one request.
    const take = events => {
      let length = 0;
      return events.filter(({ text }, at) => (length += text.length) < REQUEST_LENGTH_MAX && at < REQUEST_EVENTS_MAX);
    };
    const bodyOf = events => '{"events":[' + events.map(event => event.text) + ']}';

    // Sends events, and forgets them once they are answered; resolves to 0 then, else to the least time to wait.
    const post = async events => {
      try {
        // A string is text/plain, which needs no preflight.
        const body = bodyOf(events);
        const response = await request(api, { method: 'POST', body, credentials: 'omit', keepalive: true });
        const answer = await response.text();
        option('debug') == null || console.log(body, answer);
        if (/^5|429|408/.test(response.status)) return response.headers.get('retry-after') * 1000 || 1;
        // The quotes are those of the member: within a text of the page's they would be escaped.
        if (/"NOT_FOUND"/.test(answer)) refuse();
        queue = queue.filter(event => !events.includes(event));
        return 0;
      } catch (error) {
        return 1;
      }
    };

    const send = async () => {
      timer = 0;
      // The server knows a repeat for a day. What a beacon took longer ago, of a tab that was asleep, would be new.
      queue = queue.filter(event => !(now() - event.at > 8e7));
      const events = take(queue);
      if (pause || !events[0]) return;
      pause = send;
      const wait = await post(events);
      // After the last try it waits for an event, for `online`, or for being shown.
      pause = wait && setTimeout(resume, Math.max(wait, 1e3 * 2 ** (tries++ % TRIES_MAX + Math.random() / 2)));
      if (wait) return;
      tries = 0;
      send();
    };

    const resume = () => {
      pause = 0;
      if (tries < TRIES_MAX) send();
    };

    // Time and depth of the page view so far. A tab that is hidden, shown and hidden again would send them each time:
    // so it is the first time, then only where there is more than was sent, and the rest at the end of the view.
    const engage = isEnd => {
      if (shownSince) engagedMs += now() - shownSince;
      shownSince = 0;
      if (engagedMs > 1000 && (isEnd || engagedMs > sentMs) && !asked && isOn('engagement')) {
        add('custom', { name: '$engagement', engagedMs, scrollPct });
        sentMs += engagedMs;
        engagedMs = 0;
      }
    };

    const scroll = () => {
      scrollPct = Math.max(
        scrollPct,
        Math.min(100, (scrollY + innerHeight) / document.documentElement.scrollHeight * 100 | 0)
      );
    };

    // A page view, once it is seen.
    const view = () => {
      const url = clean(location.href);
      if ((isViewDue = document.hidden) || url == lastUrl) return;
      engage(1);
      lastUrl = url;
      engagedMs = sentMs = scrollPct = 0;
      shownSince = now();
      add('pageview', { title: document.title, status }, referrer);
      status = referrer = undefined;
      setTimeout(send);
    };

    // Hidden or left, perhaps for ever: all that has no answer is sent once more, what is in flight included. That a
    // beacon was taken is no proof, so all stays in the queue.
    const hide = isEnd => {
      scroll();
      engage(isEnd);
      // Who closes a tab hides it in the same moment. What is in flight comes last, as it may be there already.
      for (let events; (events = take(queue.filter(event => !(now() - event.at < 1000)).reverse()))[0];) {
        if (!navigator.sendBeacon || !navigator.sendBeacon(api, bodyOf(events))) post(events);
        events.map(event => (event.at = now()));
      }
      if (isStoring) store('session', code, JSON.stringify(queue));
    };

    const shown = () => {
      if (document.hidden) return hide();
      shownSince = now();
      if (isViewDue) view();
      send();
    };

    const click = event => {
      const find = selector => event.composedPath().find(node => node.matches && node.matches(selector));
      // The right button opens a menu.
      if (event.button > 1) return;
      const hit = find('[data-hit]');
      const link = find('[href]');
      if (hit) {
        const properties = {};
        for (const { name, value } of hit.attributes) {
          if (/^data-hit-/.test(name)) properties[name.slice(9)] = value;
        }
        return track(hit.getAttribute('data-hit'), properties);
      }
      // One of SVG has none, and that of `mailto:` is empty.
      if (!link || !link.host) return;
      const name =
        isOn('downloads') && (FILES.test(link.pathname) || find('[download]')) ? 'download' :
        isOn('outbound') && link.host != location.host && 'outbound';
      if (name) add('click', { name, href: clean(link.href) });
    };

    // Two tags with different codes are two trackers, and what the page calls goes to both.
    const offered = {
      track,
      view,
      flush: send,
      optOut: isOut => {
        store('local', 'ignore', isOut ? 1 : '');
        if (isOut) queue = [];
      }
    };
    for (const name in offered) {
      const before = methods[name];
      methods[name] = (...values) => {
        if (before) before(...values);
        offered[name](...values);
      };
    }

    if (!code) refuse();
    if (isSilent) return;
    if (isStoring) queue = JSON.parse(store('session', code) || '[]');

    addEventListener('visibilitychange', shown);
    // Captured, and so heard whoever else listens.
    addEventListener('click', click, true);
    addEventListener('auxclick', click, true);
    addEventListener('scroll', scroll);
    addEventListener('pagehide', hide);
    addEventListener('online', () => {
      tries = 0;
      clearTimeout(pause);
      resume();
    });
    if (!isOn('auto')) return;
    addEventListener('pageshow', event => event.persisted && view(lastUrl = ''));
    if (isOn('spa')) {
      // In a moment, as routers change an address more than once, and the title after it.
      for (const name of ['pushState', 'replaceState']) {
        const original = history[name];
        history[name] = (...values) => {
          scroll();
          original.apply(history, values);
          setTimeout(view);
        };
      }
      addEventListener('popstate', () => setTimeout(view));
    }
    view();
  };
  // </tracker>

  const script = document.currentScript;
  start(name => script.getAttribute('data-' + name), script.src || location.href);
})();
