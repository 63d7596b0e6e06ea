// Dialogs: open as long as they are drawn; the focus goes back to where it was.

import { useEffect, useRef } from "./vendor/htm-preact.js";

/** A reference for the dialog element. */
export function useDialog() {
  const dialog = useRef(null);
  useEffect(() => {
    const { current } = dialog;
    current.showModal();
    return () => current.close();
  }, []);
  return dialog;
}
