/** What an element is made of. `null` and `false` are left out, so that a part can depend on a condition. */
export type Child = Node | string | null | false;

/** Makes an element. Text becomes text nodes: nothing that a job wrote is ever read as markup. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Readonly<Record<string, string>> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== false));
  return element;
}

/** Brings what an element holds in line with what it should hold. What stays keeps the focus and the selection of its reader. */
export function fill(element: Element, ...children: Child[]): void {
  const fresh = [...h("div", {}, ...children).childNodes];
  fresh.forEach((node, index) => {
    const old = element.childNodes[index];
    if (old === undefined) element.append(node);
    else if (!old.isEqualNode(node)) old.replaceWith(node);
  });
  for (let extra = element.childNodes.length - fresh.length; extra > 0; extra -= 1) element.lastChild?.remove();
}

/**
 * Brings the children of a list in line with its items. An item that stays keeps its element, and with it the focus of the keyboard.
 *
 * @param update fills the element, which is empty when it is new.
 */
export function fillList<T>(
  list: Element,
  tag: keyof HTMLElementTagNameMap,
  items: readonly T[],
  keyOf: (item: T) => string,
  update: (element: HTMLElement, item: T) => void,
): void {
  const known = new Map(
    [...list.children].map((child) => [(child as HTMLElement).dataset["key"], child as HTMLElement]),
  );
  const elements = items.map((item) => {
    const key = keyOf(item);
    const element = known.get(key) ?? h(tag, { "data-key": key });
    update(element, item);
    return element;
  });
  for (const child of Array.from(list.children)) if (!elements.includes(child as HTMLElement)) child.remove();
  elements.forEach((element, index) => {
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
}

/** Calls `work` at most once per frame of the screen, however often it is asked to. */
export function eachFrame(work: () => void): () => void {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    // A hidden page has no frames; it is drawn when it is seen again.
    requestAnimationFrame(() => {
      isDue = false;
      work();
    });
  };
}
