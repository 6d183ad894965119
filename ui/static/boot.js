// Loads one of our modules from beside the page, also when the studio lives below another path.
const root = new URL(window.gradio_config?.root ?? ".", location.href).pathname.replace(/\/*$/, "/");
import(`${location.origin}${root}studio/static/${pochade.module}`).then((it) => it.mount(context));
