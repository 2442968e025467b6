// hitlog's tracker: one tag, and every page view arrives once.
//
// This is the source. `scripts/tracker` makes of it what is served: tracker.min.js, and, of what stands between the
// two marks, the module tracker.mjs. There are 2,300 bytes for it, compressed: what can be said shorter is.
(() => {
  // <tracker>
  const start = (option, base) => {
    // Taken now, so that who replaces it later neither breaks this nor has anything sent twice. Who has replaced it
    // before is obeyed: the header of a tracing script costs a preflight, which hitlog answers.
    const { fetch } = window;
    const QUEUE_EVENTS_MAX = 100;
    const REQUEST_EVENTS_MAX = 20;
    const REQUEST_BYTES_MAX = 48e3;
    // All that is in flight with keepalive may have 64 KiB, and what is sent at the end needs room beside it.
    const KEEPALIVE_LENGTH_MAX = 15e3;
    const EVENT_BYTES_MAX = 32e3;
    const URL_LENGTH_MAX = 4096;
    const TEXT_LENGTH_MAX = 300;
    const TRIES_MAX = 6;
    const SESSION_IDLE_MS = 18e5;
    const FILES =
      /\.(7z|avi|csv|dmg|docx?|epub|exe|gz|iso|mov|mp[34]|msi|pdf|pkg|pptx?|rar|rtf|tgz|txt|wav|xlsx?|zip)$/i;

    const now = Date.now;
    const isOn = name => option(name) != 'off';
    const list = name => (option(name) || '').split(/[\s,]+/);
    // The limits are in bytes.
    const bytesOf = text => new Blob([text]).size;
    // Without the fragment, unless it is a route, and with what `data-query` leaves of the query, in either. The
    // server takes no longer one, and the end is what a page can be known without.
    const clean = url => url.replace(/#(?!!?\/).*/, '').replace(/\?[^#]*/g, query => {
      if ((option('query') || 'keep') == 'keep') return query;
      query = query.slice(1).split('&').filter(part => {
        part = part.split('=')[0];
        return /^(utm_.*|ref|source)$/.test(part) || list('query').includes(part);
      }).join('&');
      return query && '?' + query;
    }).slice(0, URL_LENGTH_MAX);
    // Reads without a value, removes with ''. Even to name a storage may throw, by a setting of the browser's.
    const store = (area, key, value) => {
      try {
        const storage = window[area + 'Storage'];
        if (value) storage['hitlog.' + key] = value;
        else if (value == '') delete storage['hitlog.' + key];
        return storage['hitlog.' + key];
      } catch (error) {}
    };
    const debug = (...words) => option('debug') == null || console.log('hitlog', ...words);

    const code = option('code') || option('tracking-code') || window.TRACKER_CODE;
    const api = new URL(option('api') || option('api-url') || window.TRACKER_API || '/api/v1/events', base) + '/batch';
    const ids = option('ids');
    // What becomes of who asks not to be tracked. A word that is none of the three is as `anonymous`.
    const asked = (
      (navigator.globalPrivacyControl ? option('gpc') || 'anonymous' : '') +
      (navigator.doNotTrack == 1 ? option('dnt') || 'anonymous' : '')
    ).replace(/ignore/g, '');
    const isStoring = /session|visitor/.test(ids) && !asked;

    const methods = window.hitlog = window.hitlog || {};
    // Nothing is sent by this tracker, or any more.
    let isSilent =
      /drop/.test(asked) ||
      navigator.webdriver ||
      (option('domains') && !list('domains').includes(location.hostname)) ||
      (option('local') == null && /^(|(.*\.)?localhost|127\..*|\[::1])$/.test(location.hostname)) ||
      Math.random() * 100 >= (option('sample') || 100) ||
      // The same tag a second time.
      methods[api + code];
    methods[api + code] = 1;

    let queue = [];
    let timer, pause, isSending, wasAnswered;
    let tries = 0;
    let lastUrl, isViewDue, wasViewed;
    let shownSince, engagedMs, sentMs, scrollPct;
    let session, visitor;

    // An unknown code, or none. What is wrong stays wrong.
    const refuse = () => {
      isSilent = 1;
      queue = [];
      console.warn('hitlog: unknown data-code', code);
    };

    // The ids of session and visitor. Where nothing can be stored they are those of this page.
    const identify = id => {
      if (asked) return [id, id];
      if (!isStoring) return ['server', 'server'];
      const [last, seen] = (store('session', 'session') || session || '').split(' ');
      const current = now() - seen < SESSION_IDLE_MS ? last : id;
      store('session', 'session', session = current + ' ' + now());
      if (ids == 'visitor') store('local', 'visitor', visitor = store('local', 'visitor') || visitor || id);
      return [current, visitor || current];
    };

    // Takes an event in. Its bytes are those of every try, and by its id the server knows a repeat.
    const add = (eventType, properties, url, referrer = '') => {
      if (isSilent || store('local', 'ignore')) return;
      // Not randomUUID, which pages of http: have not.
      const eventId = crypto.getRandomValues(new Uint32Array(4)).join('-');
      const [sessionId, visitorId] = identify(eventId);
      const name = properties.name && ('' + properties.name).slice(0, TEXT_LENGTH_MAX);
      let event = {
        trackingCode: code,
        eventType,
        url: url || clean(location.href),
        referrer,
        sessionId,
        visitorId,
        eventId,
        timestamp: now(),
        properties: asked ? { name } : { ...properties, name }
      };
      if (window.hitlogBefore) event = window.hitlogBefore(event);
      if (!event) return;
      let text;
      try {
        text = JSON.stringify(event);
      } catch (error) {}
      // It goes around in circles, or the server would refuse it.
      if (!text || bytesOf(text) > EVENT_BYTES_MAX) text = JSON.stringify({ ...event, properties: { name } });
      debug(text);
      // The newest is dropped: what came first has the page view, with the referrer, that the others belong to.
      if (queue.length < QUEUE_EVENTS_MAX && bytesOf(text) < REQUEST_BYTES_MAX) queue.push({ text });
      if (eventType == 'pageview' || !timer) {
        clearTimeout(timer);
        timer = setTimeout(send, eventType == 'pageview' ? 0 : 2000);
      }
    };

    // The origin's way to call it has the type of the event in place of a name.
    const track = (name, properties) => {
      if (name == 'pageview') view();
      else if (/^(click|custom)$/.test(name)) add(name, { ...properties });
      else add('custom', { ...properties, name });
    };

    // The first events of a list that fit into one request.
    const take = events => {
      let bytes = 0;
      return events.filter((event, at) => (bytes += bytesOf(event.text)) < REQUEST_BYTES_MAX && at < REQUEST_EVENTS_MAX);
    };
    const bodyOf = events => '{"events":[' + events.map(event => event.text) + ']}';
    // A string is text/plain, which needs no preflight.
    const post = async body =>
      fetch(api, { method: 'POST', body, credentials: 'omit', keepalive: body.length < KEEPALIVE_LENGTH_MAX });

    const send = async () => {
      clearTimeout(timer);
      timer = 0;
      const events = take(queue);
      if (pause || isSending || !events[0]) return;
      isSending = 1;
      wasAnswered = 0;
      let wait = 1;
      try {
        const response = await post(bodyOf(events));
        const status = wasAnswered = response.status;
        debug(status);
        if (status > 499 || status == 429 || status == 408) wait = response.headers.get('retry-after') * 1000 || 1;
        else {
          if (status == 404 || (status == 207 && /"NOT_FOUND"/.test(await response.text()))) refuse();
          queue = queue.filter(event => !events.includes(event));
          wait = tries = 0;
        }
      } catch (error) {
        debug(error);
      }
      isSending = 0;
      // After the last try it waits for an event, for `online`, or for being shown.
      if (wait) pause = setTimeout(resume, Math.max(wait, 1e3 * 2 ** tries++ * (0.8 + Math.random() / 2)), tries < TRIES_MAX);
      else send();
    };

    const resume = isTried => {
      clearTimeout(pause);
      pause = 0;
      if (isTried) send();
    };

    // Time and depth of the page view so far. A tab that is hidden, shown and hidden again would send them each time:
    // so it is the first time, then only where there is more than was sent, and the rest at the end of the view.
    const engage = isEnd => {
      if (shownSince) engagedMs += now() - shownSince;
      shownSince = 0;
      if (engagedMs > 1000 && (isEnd || engagedMs > sentMs) && !asked && isOn('engagement')) {
        add('custom', { name: '$engagement', engagedMs, scrollPct }, lastUrl);
        sentMs += engagedMs;
        engagedMs = 0;
      }
    };

    const scroll = () => {
      const seen = (scrollY + innerHeight) / document.documentElement.scrollHeight;
      scrollPct = Math.max(scrollPct, Math.min(100, Math.round(seen * 100)));
    };

    // A page view, once it is seen.
    const view = () => {
      isViewDue = document.prerendering || document.hidden;
      const url = clean(location.href);
      if (isViewDue || url == lastUrl) return;
      engage(1);
      lastUrl = url;
      engagedMs = sentMs = scrollPct = 0;
      shownSince = now();
      const properties = { title: document.title.slice(0, TEXT_LENGTH_MAX) };
      if (!wasViewed && option('status')) properties.status = option('status');
      add('pageview', properties, url, wasViewed ? '' : clean(document.referrer));
      wasViewed = 1;
    };

    // Hidden or left, perhaps for ever: all that has no answer is sent once more, what is in flight included. That a
    // beacon was taken is no proof, so all stays in the queue.
    const hide = isEnd => {
      scroll();
      engage(isEnd);
      // Who closes a tab hides it in the same moment.
      let rest = queue.filter(event => !(now() - event.beaconAt < 1000));
      while (rest[0]) {
        const events = take(rest);
        const body = bodyOf(events);
        let isTaken;
        try {
          isTaken = navigator.sendBeacon(api, body);
        } catch (error) {}
        if (!isTaken) post(body).catch(debug);
        for (const event of events) event.beaconAt = now();
        rest = rest.slice(events.length);
      }
      if (isStoring) store('session', 'queue', queue[0] ? JSON.stringify(queue) : '');
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
        return track(hit.dataset.hit, properties);
      }
      // A link of SVG has no protocol.
      if (!link || !/^http/.test(link.protocol)) return;
      const name =
        isOn('downloads') && (FILES.test(link.pathname) || link.download) ? 'download' :
        isOn('outbound') && link.host != location.host && !list('domains').includes(link.hostname) && 'outbound';
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
    window.PivotMetrics = methods;

    if (!code) refuse();
    if (isSilent) return;
    if (isStoring) queue = JSON.parse(store('session', 'queue') || '[]');

    // Captured, and so heard whoever else listens. All of these come by the window.
    const listen = (names, heard) => names.split(' ').map(name => addEventListener(name, heard, true));
    listen('visibilitychange prerenderingchange', shown);
    listen('click auxclick', click);
    listen('scroll', scroll);
    listen('pagehide', () => hide(1));
    listen('online', () => {
      tries = 0;
      // Not where the server has said when.
      if (!wasAnswered) resume(1);
    });
    if (!isOn('auto')) return;
    listen('pageshow', event => {
      if (event.persisted) {
        lastUrl = '';
        view();
      }
    });
    if (isOn('spa')) {
      // In a moment, as routers change an address more than once, and the title after it.
      const soon = () => setTimeout(view);
      for (const name of ['pushState', 'replaceState']) {
        const original = history[name];
        history[name] = function (...values) {
          scroll();
          original.apply(this, values);
          soon();
        };
      }
      listen('popstate hashchange', soon);
    }
    view();
  };
  // </tracker>

  const script = document.currentScript;
  start(name => script.getAttribute('data-' + name), script.src || location.href);
})();
