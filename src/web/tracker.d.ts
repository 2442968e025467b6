/** What the attributes of the tag say, by the same names; `false` is `off`. */
export interface Options {
  /** The tracking code of the website: `pm-…`. */
  code: string;
  /** Where events go, if not to `/api/v1/events` of where the module came from. Needed where it is bundled. */
  api?: string;
  /** Who knows a visitor again: `server` (the default) stores nothing in the browser. */
  ids?: 'server' | 'session' | 'visitor';
  /** The hosts on which it counts, by commas; all if not said. */
  domains?: string;
  /** What is sent of the query: `keep` (the default), `drop`, or names to keep, by commas. */
  query?: string;
  /** Page views of changes of the address without a load. */
  spa?: 'off' | boolean;
  /** Clicks on links to other hosts. */
  outbound?: 'off' | boolean;
  /** Clicks on links to files. */
  downloads?: 'off' | boolean;
  /** How long a page was seen, and how far down. */
  engagement?: 'off' | boolean;
  /** With Global Privacy Control on. `anonymous` is the default. */
  gpc?: 'anonymous' | 'drop' | 'ignore';
  /** With Do Not Track on. `anonymous` is the default. */
  dnt?: 'anonymous' | 'drop' | 'ignore';
  /** The percentage of page loads that are counted; 100 if not said. */
  sample?: number | string;
  /** Counts on this machine and in files, too. */
  local?: boolean;
  /** The HTTP status of the page, as its template knows it. */
  status?: number | string;
  /** `off`: page views only by `view()`. */
  auto?: 'off' | boolean;
  /** Writes what is sent, and the answers, to the console. */
  debug?: boolean;
}

export interface Tracker {
  /** Sends an event of this name. `pageview`, `click` and `custom` are types and not names. */
  track(name: string, properties?: Record<string, unknown>): void;
  /** A page view, unless the address is still that of the last one. */
  view(): void;
  /** Sends what waits. */
  flush(): void;
  /** Whether this browser is not counted from now on; it is kept in localStorage. */
  optOut(isOut: boolean): void;
}

/** An event before it is sent. */
export interface Event {
  trackingCode: string;
  eventType: 'pageview' | 'click' | 'custom';
  url: string;
  referrer?: string;
  sessionId: string;
  visitorId: string;
  eventId: string;
  timestamp: number;
  properties: Record<string, unknown>;
}

/** Starts a tracker, and returns what is `window.hitlog` as well. */
export function init(options: Options): Tracker;
export default init;

declare global {
  interface Window {
    hitlog: Tracker;
    /** The same under the name that the origin has for it. */
    PivotMetrics: Tracker;
    /** Sees every event, and may change it; null if it is not to be sent. */
    hitlogBefore?: (event: Event) => Event | null;
  }
}
