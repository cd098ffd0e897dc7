// Starts Swagger UI. A file of its own, because the page's policy allows no inline script.
"use strict";

// Routes that take any method are documented for each, TRACE included: show one row for each such path.
const oneRowForAnyMethod = (original) => (...args) =>
  original(...args).map((tag) =>
    tag.update("operations", (operations) => {
      const any = operations.filter((operation) => operation.get("method") === "trace");
      const paths = any.map((operation) => operation.get("path")).toSet();
      return operations.filter((operation) => operation.get("method") === "get" || !paths.has(operation.get("path")));
    }),
  );

// Every field of the dialog asks for the focus, and the last one gets it: focus the first instead, and show the top.
const openAtTheTop = (Original, { React }) =>
  function AuthorizationPopup(props) {
    const dialog = React.useRef(null);
    React.useEffect(() => {
      dialog.current.querySelector("input")?.focus({ preventScroll: true });
      dialog.current.querySelector(".modal-ux-content").scrollTop = 0;
    }, []);
    return React.createElement("div", { ref: dialog }, React.createElement(Original, props));
  };

SwaggerUIBundle({
  url: "/api/docs/openapi.json",
  dom_id: "#swagger-ui",
  layout: "BaseLayout", // no bar for opening other documents
  deepLinking: true,
  defaultModelsExpandDepth: 0, // the list of schemas is folded
  tryItOutEnabled: true,
  persistAuthorization: false, // credentials stay out of localStorage
  validatorUrl: null, // the document is not sent to anyone
  plugins: [
    {
      statePlugins: { spec: { wrapSelectors: { taggedOperations: oneRowForAnyMethod } } },
      wrapComponents: { authorizationPopup: openAtTheTop },
    },
  ],
});
